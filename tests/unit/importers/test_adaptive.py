"""DEKR, mmpose's DEKR and the journal's code: narrow instances say the same here; nothing of a full size is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from timm.models import hrnet  # noqa: E402
from torch import nn  # noqa: E402

from mdpose_edge.checkpoint import load_network, read_checkpoint  # noqa: E402
from mdpose_edge.errors import CheckpointError, ConfigError  # noqa: E402
from mdpose_edge.importers.hrnet import BACKBONES, NO_SCORER  # noqa: E402
from mdpose_edge.importers.run import import_weights  # noqa: E402
from tests.unit.importers.published import GOLDENS, check_published, save_published, weights_of  # noqa: E402

NAMES = ("dekr", "hrnet-bottom-up", "mmpose-dekr")
SIZE = {"height": 64, "width": 96}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """HRNet with branches of 4, 8, 12 and 16 channels, of the published depth."""

    def hrnet_narrow(pretrained: bool = False, **options: Any) -> Any:
        return hrnet._create_hrnet("hrnet_w32", pretrained, cfg_variant="hrnet_narrow", **options)

    layout = {
        key: dict(stage) if isinstance(stage, dict) else stage for key, stage in hrnet.cfg_cls["hrnet_w32"].items()
    }
    for branches in (2, 3, 4):
        layout[f"stage{branches}"]["num_channels"] = (4, 8, 12, 16)[:branches]
    monkeypatch.setitem(hrnet.cfg_cls, "hrnet_narrow", layout)
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "hrnet_narrow", hrnet_narrow)
    monkeypatch.setitem(timm.models._registry._model_to_module, "hrnet_narrow", "hrnet")
    monkeypatch.setitem(BACKBONES, 4, "hrnet_narrow")


def golden_of(name: str) -> str:
    return name.replace("-", "_")


def check_outputs(model: Path, golden: str) -> None:
    """Compare the network of a checkpoint with the authors' figures, in float64."""
    wanted, (network, _) = np.load(GOLDENS / f"{golden}.npz"), load_network(model)
    network.normalize = nn.Identity()  # the image is normalised, and RGB
    with torch.no_grad():
        found = network.double()(torch.from_numpy(wanted["image"]).double().flip(1))
    heat = torch.cat([found["heat"], found["centre"]], dim=1)
    np.testing.assert_allclose(heat, wanted["heatmap_float64"], rtol=1e-4, atol=1e-4)
    offset = wanted["displacement_float64"] if "displacement_float64" in wanted else -wanted["offset_float64"]
    np.testing.assert_allclose(found["offset"], offset, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_the_authors(tmp_path: Path, name: str) -> None:
    theirs = weights_of(golden_of(name))
    path = save_published(tmp_path / "a.pth", theirs, meta={"epoch": 140})
    imported = import_weights(path, name, tmp_path / "model.safetensors", **SIZE)
    assert imported.tensors == len(theirs) and NO_SCORER in imported.notes
    constants = imported.spec.constants
    assert (constants["cell_origin"], constants["reach"], constants["scorer"]) == (0.0, 75 / 64, None)
    check_outputs(imported.path, golden_of(name))


def test_a_file_of_mmpose_before_version_1_says_the_same(tmp_path: Path) -> None:
    """Other names, the centre first, and offsets from the keypoint to the cell."""
    old = {}
    for name, tensor in weights_of("mmpose_dekr").items():
        name = name.replace("head.displacement_", "keypoint_head.offset_").replace("head.heat", "keypoint_head.heat")
        if "heatmap_conv_layers.2." in name:
            tensor = torch.cat([tensor[-1:], tensor[:-1]])
        old[name] = -tensor if "offset_conv_layers.3." in name else tensor
    path = save_published(tmp_path / "a.pth", old)
    check_outputs(import_weights(path, "mmpose-dekr", tmp_path / "model.safetensors", **SIZE).path, "mmpose_dekr")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_published_size_is_missing_or_left_over(name: str) -> None:
    converted = check_published(golden_of(name), name)
    network, size = converted.spec.network, converted.spec.input
    assert (network["backbone"], network["heat_channels"]) == ("hrnet_w32", 32)
    assert (network["channels_per_keypoint"], network["pose_channels"]) == (15, 256)
    assert (size.height, size.width, size.resize) == (512, 512, "letterbox")
    assert {kind: len(tensors) for kind, tensors in converted.side.items()} == ({"scorer": 6} if name[0] == "m" else {})


def scoring_net(links: int = 19, hidden: int = 16) -> dict[str, Any]:
    width = 3 * links + 17
    shapes = {"l1": (hidden, width), "l2": (hidden, hidden), "l3": (1, hidden)}
    return {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()} | {
        f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()
    }


def test_the_scoring_net_comes_along(tmp_path: Path) -> None:
    net, theirs = scoring_net(), weights_of("dekr")
    path, scorer = save_published(tmp_path / "a.pth", theirs), save_published(tmp_path / "rescore.pth", net)
    imported = import_weights(path, "dekr", tmp_path / "model.safetensors", scorer=scorer, **SIZE)
    side = read_checkpoint(imported.path).side["scorer"]
    assert all(torch.equal(side[name], net[name]) for name in net) and NO_SCORER not in imported.notes
    assert imported.spec.constants["scorer"]["torso"] == [9, 11]
    within = {f"head.rescore_net.{name}": tensor for name, tensor in net.items()} | weights_of("mmpose_dekr")
    path = save_published(tmp_path / "b.pth", within)
    other = import_weights(path, "mmpose-dekr", tmp_path / "other.safetensors", **SIZE)
    assert read_checkpoint(other.path).side["scorer"].keys() == net.keys()
    assert other.spec.constants["scorer"]["torso"] == [5, 6]


def test_a_scoring_net_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save_published(tmp_path / "a.pth", weights_of("dekr"))
    scorer = save_published(tmp_path / "rescore.pth", scoring_net(links=15))
    with pytest.raises(CheckpointError, match=r"expected scorer.l1.weight of shape \(16, 74\), got \(16, 62\)"):
        import_weights(path, "dekr", tmp_path / "model.safetensors", scorer=scorer, **SIZE)
    with pytest.raises(
        ConfigError, match="--scorer: expected a scoring net of dekr or hrnet-bottom-up, got one beside"
    ):
        import_weights(path, "mmpose-dekr", tmp_path / "model.safetensors", scorer=scorer)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.pth", "rescore.pth"]


@pytest.mark.parametrize(
    ("layer", "shape", "sentence"),
    [
        (
            "stage4.0.branches.0.0.conv1.weight",
            (5, 5, 3, 3),
            "expected HRNet-W32 or HRNet-W48, got a finest branch of 5",
        ),
        ("conv1.weight", (64,), r"expected conv1.weight of a shape that becomes \(64, 3, 3, 3\), got \(64,\)"),
        (
            "offset_feature_layers.0.0.transform_matrix_conv.bias",
            (3,),
            r"transform_matrix_conv.bias of a shape that becomes \(102,\), got \(3,\)",
        ),
        ("head_heatmap.1.weight", (20, 6, 1, 1), r"expected 17 keypoints \(COCO\) or 14 \(CrowdPose\), got 19"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, layer: str, shape: tuple[int, ...], sentence: str) -> None:
    path = save_published(tmp_path / "a.pth", weights_of("dekr") | {layer: torch.zeros(shape)})
    with pytest.raises(CheckpointError, match=sentence):
        import_weights(path, "dekr", tmp_path / "model.safetensors", **SIZE)


def test_it_is_exported_and_run_with_its_scoring_net(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    from mdpose_edge.estimator import PoseEstimator
    from mdpose_edge.export.bundle import export_checkpoint
    from mdpose_edge.export.options import ExportOptions

    net = scoring_net() | {"l3.weight": torch.full((1, 16), 1e-3), "l3.bias": torch.tensor([0.5])}
    path, scorer = save_published(tmp_path / "a.pth", weights_of("dekr")), save_published(tmp_path / "b.pth", net)
    imported = import_weights(path, "dekr", tmp_path / "model.safetensors", scorer=scorer, **SIZE)
    bundle = export_checkpoint(imported.path, tmp_path / "bundle", ExportOptions("onnx")).path
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = []
    for model in (imported.path, bundle):
        with PoseEstimator(model, threads=1, threshold=1e-4) as estimator:
            found.append(estimator(frame))
    assert len(found[0].scores) == len(found[1].scores) > 0
    np.testing.assert_allclose(found[1].keypoints_xy, found[0].keypoints_xy, atol=0.5)
