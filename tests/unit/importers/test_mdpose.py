"""MDPose by its authors' code: a narrow instance gives the same here, and nothing of the published size is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from timm.models import resnet  # noqa: E402
from torch import nn  # noqa: E402

from mdpose_edge.checkpoint import load_network  # noqa: E402
from mdpose_edge.importers import mdpose  # noqa: E402
from mdpose_edge.importers.run import import_weights  # noqa: E402
from tests.unit.importers.published import GOLDENS, check_published, save_published, weights_of  # noqa: E402


class NarrowResNet(resnet.ResNet):  # type: ignore[misc]
    """ResNet-50 with 4 channels in the stem, and 8 to 20 above."""

    def __init__(self, **options: Any) -> None:
        super().__init__(channels=(2, 3, 4, 5), **options)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
        first = self.layer1[0]
        first.conv1, first.downsample[0] = nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(4, 8, 1, bias=False)
        self.feature_info[0]["num_chs"] = 4


def narrow_resnet50(pretrained: bool = False, **options: Any) -> Any:
    layers = {"block": resnet.Bottleneck, "layers": (3, 4, 6, 3)}
    return timm.models.build_model_with_cfg(NarrowResNet, "narrow_resnet50", pretrained, **layers, **options)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "narrow_resnet50", narrow_resnet50)
    monkeypatch.setitem(timm.models._registry._model_to_module, "narrow_resnet50", "resnet")
    monkeypatch.setitem(mdpose.BACKBONES, (True, 6), "narrow_resnet50")


@pytest.mark.usefixtures("narrow")
def test_the_outputs_are_the_authors(tmp_path: Path) -> None:
    golden = np.load(GOLDENS / "mdpose_resnet50.npz")
    path = save_published(tmp_path / "network.pth", weights_of("mdpose_resnet50"))
    imported = import_weights(path, "mdpose", tmp_path / "model.safetensors", height=128, width=128)
    network, spec = load_network(imported.path)
    assert imported.tensors == len(weights_of("mdpose_resnet50")) == 350
    network.normalize = nn.Identity()  # the golden's image is normalised, and RGB
    with torch.no_grad():
        levels = network.double()(torch.from_numpy(golden["image"]).double().flip(1))
    assert spec.network["p6_from"] == "c5" and len(levels) == 5
    for number, level in enumerate(levels):
        got = torch.cat([level.o, level.mu[:, :34], level.gamma[:, :34]], dim=1)
        np.testing.assert_allclose(got, golden[f"raw_level{number}"], rtol=1e-4, atol=1e-4)
        assert not level.mu[:, 34:].any()


def test_nothing_of_the_published_size_is_missing_or_left_over() -> None:
    spec = check_published("mdpose_resnet50", "mdpose").spec
    assert (spec.network["backbone"], spec.network["channels"], spec.network["head_convs"]) == ("resnet50", 256, 8)
    assert (spec.input.height, spec.input.width) == (896, 896)
