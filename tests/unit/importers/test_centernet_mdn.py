"""Mixture dense regression by its authors' code: the same outputs, and nothing of the published size is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import nn  # noqa: E402

from mdpose_edge.checkpoint import load_network  # noqa: E402
from mdpose_edge.errors import CheckpointError  # noqa: E402
from mdpose_edge.families.hourglass import HOURGLASSES, HourglassShape  # noqa: E402
from mdpose_edge.importers.centernet_mdn import COCO_CLASSES, FROM_CORNER, POSES  # noqa: E402
from mdpose_edge.importers.run import import_weights  # noqa: E402
from tests.unit.importers.published import GOLDENS, check_published, save_published, weights_of  # noqa: E402

GOLDEN = "mixture_dense_hourglass"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = HourglassShape((6, 4), (4, 4, 6, 6, 6, 8), (2, 2, 2, 2, 2, 4), channels=5)
    monkeypatch.setitem(HOURGLASSES, "hourglass104", shape)


@pytest.mark.usefixtures("narrow")
def test_the_outputs_are_the_authors_but_for_half_a_cell(tmp_path: Path) -> None:
    golden, theirs = np.load(GOLDENS / f"{GOLDEN}.npz"), weights_of(GOLDEN)
    path = save_published(
        tmp_path / "model_last.pth", {f"module.{name}": t for name, t in theirs.items()}, arch="hourglass"
    )
    imported = import_weights(path, "centernet-mdn", tmp_path / "model.safetensors", height=128, width=128)
    network, spec = load_network(imported.path)
    assert imported.tensors == len(theirs)
    assert (spec.constants["components"], spec.constants["sigma_floor"]) == (2, 9.0)
    network.normalize = nn.Identity()
    with torch.no_grad():
        stacks = network.double()(torch.from_numpy(golden["image"]).double())
    compared = 0
    for name in golden.files:
        stack, _, kind = name.partition("_")
        if kind not in POSES:
            continue
        outputs, ours = stacks[int(stack[-1])], POSES[kind]
        parts = [outputs[key] for key in (f"{ours}_1", f"{ours}_2") if key in outputs] or [outputs[ours]]
        got, want = torch.cat(parts, dim=1).numpy() + 0.5 * (kind in FROM_CORNER), golden[name]
        step = got.shape[2] // want.shape[2]
        np.testing.assert_allclose(got[:, :, ::step, ::step], want, rtol=1e-4, atol=1e-4, err_msg=name)
        compared += 1
    assert compared == 10


def test_nothing_of_the_published_size_is_missing_or_left_over() -> None:
    spec = check_published(GOLDEN, "centernet-mdn").spec
    assert (spec.constants["components"], spec.network["head_channels"], spec.constants["heatmaps"]) == (3, 256, True)


def boxes_of_poses() -> dict[str, Any]:
    """Give a network of boxes whose sizes are the first numbers of the poses, and whose classes are all the people."""
    weights = {}
    for name, tensor in weights_of(GOLDEN).items():
        kind, _, rest = name.partition(".")
        if kind == "hm" and rest[2:4] == "1.":
            weights[name] = tensor.expand(len(COCO_CLASSES), *tensor.shape[1:]).clone()
        elif kind == "hps":
            weights[f"wh.{rest}"] = tensor[:4] if rest[2:4] == "1." else tensor
        elif kind not in ("wh", "hm_hp", "hp_offset"):
            weights[name] = tensor
    return weights


@pytest.mark.usefixtures("narrow")
def test_boxes_of_classes_are_read_too(tmp_path: Path) -> None:
    golden, path = np.load(GOLDENS / f"{GOLDEN}.npz"), save_published(tmp_path / "a.pth", boxes_of_poses())
    imported = import_weights(path, "centernet-mdn", tmp_path / "model.safetensors", height=128, width=128)
    network, spec = load_network(imported.path)
    assert spec.classes == COCO_CLASSES and not spec.keypoints.names
    assert (spec.constants["sigma_floor"], spec.constants["heatmaps"]) == (0.0, False)
    network.normalize = nn.Identity()
    with torch.no_grad():
        last = network.double()(torch.from_numpy(golden["image"]).double())[-1]
    sizes = torch.cat([last["mu_1"], last["mu_2"]], dim=1).numpy()
    step = sizes.shape[2] // golden["stack1_hps"].shape[2]
    np.testing.assert_allclose(sizes[:, :, ::step, ::step], golden["stack1_hps"][:, :4], rtol=1e-4, atol=1e-4)
    assert last["centre"].shape[1] == 80
    for values in (last["centre"][:, :1], last["centre"][:, 79:]):
        np.testing.assert_allclose(values, golden["stack1_hm"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"hm.0.1.weight": torch.zeros(20, 5, 1, 1)}, "expected COCO's 80 classes, got 20;"),
        (None, "expected a stacked hourglass, got DLA-34 with deformable convolutions"),
    ],
)
def test_what_cannot_be_here_is_refused(tmp_path: Path, weights: dict[str, Any] | None, sentence: str) -> None:
    theirs = {"mdn_logits.2.weight": torch.zeros(1)} if weights is None else boxes_of_poses() | weights
    path = save_published(tmp_path / "a.pth", theirs)
    with pytest.raises(CheckpointError, match=sentence):
        import_weights(path, "centernet-mdn", tmp_path / "model.safetensors")
