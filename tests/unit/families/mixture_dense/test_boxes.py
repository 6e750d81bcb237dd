"""Boxes of several classes: decoder, targets and loss against figures of the authors' code and against plain loops."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mdpose_edge.errors import ConfigError, SpecError
from mdpose_edge.families.base import BoxTraining, MixtureDecoder, People
from mdpose_edge.families.mixture_dense.boxes import BoxDecoder
from mdpose_edge.families.mixture_dense.heads import Constants, mixture_dense_spec
from mdpose_edge.families.registry import evaluation_options, make_decoder
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import NO_KEYPOINTS, DecodeSpec, InputSpec, ModelSpec
from tests.unit.families.mixture_dense.test_decode import peaks_by_loops, random_heads, score_of

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import Tensor  # noqa: E402

from mdpose_edge.families.mixture_dense.loss import at_cells, focal_loss, log_joint, spread  # noqa: E402
from mdpose_edge.families.mixture_dense.network import MixtureDenseNetwork, NetworkConfig, make_box_spec  # noqa: E402
from mdpose_edge.families.mixture_dense.targets import encode_boxes  # noqa: E402
from mdpose_edge.families.mixture_dense.training import FAMILY, LossConfig  # noqa: E402
from mdpose_edge.families.registry import training_spec  # noqa: E402

GOLDENS = Path(__file__).parents[3] / "goldens"
IDENTITY = FrameGeometry((1.0, 1.0), (0.0, 0.0))
CELLS = FrameGeometry((4.0, 4.0), (0.0, 0.0))
STRETCH = FrameGeometry((0.3, 1.7), (5.0, 0.0))


def make_spec(width: int, height: int, components: int = 2, classes: int = 3, floor: float = 1.0) -> ModelSpec:
    names = tuple(f"class{number}" for number in range(classes))
    return mixture_dense_spec(
        InputSpec(height, width), Constants(components, floor, heatmaps=False), NO_KEYPOINTS, classes=names
    )


def deciding(spec: ModelSpec, **options: object) -> DecodeSpec:
    return dataclasses.replace(spec.decode, **options)  # type: ignore[arg-type]


def boxes_by_loops(spec: ModelSpec, heads: dict[str, NDArray[np.float32]], threshold: float) -> list[list[float]]:
    """Give (score, class, x1, y1, x2, y2) px of the input, best first."""
    maps = {name: tensor[0] for name, tensor in heads.items()}
    found = []
    for number, logits in enumerate(maps["centre"]):
        for row, column in peaks_by_loops(logits.tolist(), threshold):
            alpha = maps["alpha"][:, row, column].tolist()
            size = maps[f"mu_{alpha.index(max(alpha)) + 1}"][:, row, column].tolist()
            middle = [column + 0.5, row + 0.5] + maps["offset"][:, row, column]
            half = [max(0.0, side) / 2 for side in size]
            corners = [4 * (middle[d] + sign * half[d]) for sign in (-1, 1) for d in (0, 1)]
            found.append([float(score_of(logits[row, column])), number, *corners])
    return sorted(found, key=lambda one: -one[0])


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_boxes_are_those_of_plain_loops(seed: int, components: int, classes: int) -> None:
    spec = make_spec(32, 48, components, classes)
    heads = random_heads(spec, seed)
    poses = BoxDecoder(spec, deciding(spec, max_poses=1000))(heads, IDENTITY)
    expected = np.array(boxes_by_loops(spec, heads, 0.3)).reshape(-1, 6)
    assert len(poses) == len(expected)
    np.testing.assert_allclose(poses.scores, expected[:, 0], rtol=1e-6)
    np.testing.assert_allclose(poses.boxes_xyxy, expected[:, 2:], atol=1e-3)
    assert (poses.classes is None) == (classes == 1)
    if poses.classes is not None:
        np.testing.assert_array_equal(poses.classes, expected[:, 1])


def golden_heads() -> tuple[ModelSpec, dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    golden = dict(np.load(GOLDENS / "mixture_dense_boxes_decode.npz"))
    spec = make_spec(56, 48, components=3, classes=4)  # min_sigma 2 is a floor of 1
    heads = {"centre": golden["hm_in"], "alpha": golden["mdn_logits_in"], "offset": golden["reg_in"] - np.float32(0.5)}
    for m in range(3):
        heads |= {f"mu_{m + 1}": golden["wh_in"][:, 2 * m : 2 * m + 2]}
        heads |= {f"sigma_{m + 1}": golden["mdn_sigma_in"][:, 2 * m : 2 * m + 2]}
    rows = golden["max_dets"]
    return spec, heads, np.delete(rows, 4, axis=0)  # of two cells that touch and are equal, ours is the first


def test_boxes_are_the_authors() -> None:
    spec, heads, rows = golden_heads()
    decoder = BoxDecoder(spec, deciding(spec, score_threshold=0.0, max_poses=len(rows)))
    poses, said = decoder(heads, CELLS), decoder.alternatives(heads, CELLS)
    assert poses.classes is not None
    np.testing.assert_allclose(poses.scores, rows[:, 4], atol=1e-5)
    np.testing.assert_array_equal(poses.classes, rows[:, 5])
    np.testing.assert_allclose(poses.boxes_xyxy, rows[:, :4], atol=1e-4)
    first, spoke = np.arange(len(rows)), said.weights[: len(rows)].argmax(axis=1)
    np.testing.assert_array_equal(spoke, rows[:, 6])
    np.testing.assert_allclose(said.weights[first, spoke], rows[:, 11], atol=1e-5)
    assert said.sigma_wh is not None and len(said.weights) == len(rows)
    np.testing.assert_allclose(said.sigma_wh[first, spoke], rows[:, 7:9], rtol=1e-5)
    boxes = np.stack([one.boxes_xyxy for one in said.poses], axis=1)
    np.testing.assert_array_equal(boxes[first, spoke], poses.boxes_xyxy)
    assert all(np.array_equal(one.classes, poses.classes) for one in said.poses)  # type: ignore[arg-type]
    assert said.likely(0.2).any(axis=1).all()


def test_at_most_so_many_of_all_classes_and_the_frame_is_theirs() -> None:
    spec, heads, _ = golden_heads()
    options = deciding(spec, score_threshold=0.0, max_poses=5)
    few, whole = BoxDecoder(spec, options)(heads, STRETCH), BoxDecoder(spec, options)(heads, IDENTITY)
    assert len(few) == 5
    np.testing.assert_allclose(
        few.boxes_xyxy, STRETCH.to_frame(whole.boxes_xyxy.reshape(-1, 2, 2)).reshape(-1, 4), rtol=1e-5
    )


def test_suppression_is_within_a_class() -> None:
    spec = make_spec(32, 32, components=1, classes=2)
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    heads["centre"] -= 9
    heads["centre"][0, 0, 2, [2, 4]], heads["centre"][0, 1, 2, 2] = (2, 1), 3
    heads["mu_1"] += 20  # IoU of neighbours two cells apart: 18 / 22
    assert len(BoxDecoder(spec, spec.decode)(heads, IDENTITY)) == 3
    poses = BoxDecoder(spec, deciding(spec, nms_threshold=0.7))(heads, IDENTITY)
    assert poses.classes is not None and poses.classes.tolist() == [1, 0]
    np.testing.assert_allclose(poses.scores, [score_of(3), score_of(2)])
    with pytest.raises(SpecError, match="nms: expected box, of a model without keypoints, got oks"):
        BoxDecoder(spec, deciding(spec, nms="oks", nms_threshold=0.7))


def test_nothing_is_found_below_the_threshold() -> None:
    spec = make_spec(32, 32)
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) - 9 for head in spec.heads}
    poses = make_decoder(spec)(heads, IDENTITY)
    assert isinstance(poses, Poses) and len(poses) == 0 and poses.classes is not None
    assert poses.boxes_xyxy.shape == (0, 4)


def test_the_mixture_is_of_sizes_at_the_peaks_of_the_other_side() -> None:
    spec, heads, _ = golden_heads()
    decoder = make_decoder(spec)
    assert isinstance(decoder, MixtureDecoder)
    mixture = decoder.mixture(heads, CELLS)
    assert mixture.keypoints_xy.shape == (len(mixture.log_scores), 1, 2) and mixture.law == "gaussian"
    other = {name: tensor + np.float32(0.5) for name, tensor in heads.items()}
    moved = decoder.mixture(other, CELLS, like=heads)
    np.testing.assert_allclose(moved.keypoints_xy, mixture.keypoints_xy + 0.5, atol=1e-5)
    peaks = sum(len(peaks_by_loops(logits.tolist(), 0.0)) for logits in heads["centre"][0])
    assert len(mixture.log_scores) == 3 * peaks


def test_options_of_an_evaluation() -> None:
    assert evaluation_options("mixture_dense", boxes=True).max_poses == 100
    assert evaluation_options("mixture_dense").max_poses == 20
    assert evaluation_options("mdpose", boxes=True) == evaluation_options("mdpose")


@pytest.mark.parametrize("scene", ["none", "same_cell_two_classes", "same_cell_same_class", "border"])
def test_targets_are_the_authors(scene: str) -> None:
    golden = np.load(GOLDENS / "mixture_dense_boxes_targets.npz")
    want = {key.removeprefix(f"{scene}_"): golden[key] for key in golden.files if key.startswith(f"{scene}_")}
    xywh, classes = want["boxes_xywh_px"], want["classes"]
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    boxes = corners.clip(0, (92, 60, 92, 60)).astype(np.float32)  # the code cuts at its last cell
    nobody = np.zeros((len(boxes), 0))
    people = People(nobody[..., None].repeat(2, 2).astype(np.float32), nobody.astype(bool),
                    boxes.reshape(-1, 2, 2).mean(axis=1), boxes, classes)  # fmt: skip
    got = encode_boxes(people, make_spec(96, 64), "published")
    count = int(want["reg_mask"].sum())
    assert len(got["cell"]) == count
    np.testing.assert_allclose(got["centre"], want["hm"], atol=1e-5)
    np.testing.assert_array_equal(got["cell"], want["ind"][:count])
    np.testing.assert_allclose(got["size"], want["wh"][:count], atol=1e-5)
    np.testing.assert_allclose(got["offset"] + 0.5, want["reg"][:count], atol=1e-5)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("min_sigma", [2, 1])
def test_the_likelihood_is_the_authors_without_their_clamp(m: int, min_sigma: int) -> None:
    figures = {k: torch.from_numpy(v) for k, v in np.load(GOLDENS / "mixture_dense_boxes_loss.npz").items()}
    mask = figures["reg_mask"].bool()
    mu, sigma, alpha = (
        at_cells(figures[f"m{m}_{kind}"], figures["ind"])[mask] for kind in ("mu", "sigma_raw", "alpha")
    )
    joint = log_joint(
        mu.view(-1, m, 1, 2), spread(sigma.view(-1, m, 2), min_sigma - 1.0), alpha, figures["wh"][mask][:, None],
        torch.ones(int(mask.sum()), 1, dtype=torch.bool), torch.ones(1, dtype=torch.float64),
    )  # fmt: skip
    loss = -joint.logsumexp(dim=1).sum() / (1 + mask.sum())
    torch.testing.assert_close(loss, figures[f"m{m}_min{min_sigma}_loss_mdn_no_clamp"], rtol=1e-6, atol=1e-6)
    centre = focal_loss(figures[f"m{m}_centre_logits"], figures["hm"]) / max(1, int((figures["hm"] == 1).sum()))
    torch.testing.assert_close(centre, figures[f"m{m}_loss_centre"], rtol=1e-3, atol=0.0)  # theirs clamps p


def some_boxes(count: int) -> People:
    rng = np.random.default_rng(count)
    corner = rng.uniform((2, 2), (60, 30), (count, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(8, 30, (count, 2)).astype(np.float32)], axis=1)
    nothing = np.zeros((count, 0, 2), np.float32)
    classes = rng.integers(0, 3, count)
    return People(nothing, np.zeros((count, 0), bool), boxes.reshape(-1, 2, 2).mean(axis=1), boxes, classes)


def test_a_decoder_that_is_given_the_targets_finds_the_boxes() -> None:
    spec, people = make_spec(96, 64), some_boxes(3)
    assert people.classes is not None
    targets = FAMILY.encode(people, spec, LossConfig(radius="exact"))
    heads = {head.name: np.zeros((1, *spec.head_shape(head)), np.float32) for head in spec.heads}
    belief = targets["centre"].clip(1e-3, 0.999)
    heads["centre"][0] = np.log(belief / (1 - belief))
    for person, cell in enumerate(targets["cell"].tolist()):
        heads["alpha"][0, person % 2, cell // 24, cell % 24] = 3.0
        heads[f"mu_{person % 2 + 1}"][0, :, cell // 24, cell % 24] = targets["size"][person]
        heads["offset"][0, :, cell // 24, cell % 24] = targets["offset"][person]
    poses = make_decoder(spec)(heads, IDENTITY)
    order = np.lexsort(poses.boxes_xyxy.T), np.lexsort(people.boxes_xyxy.T)
    np.testing.assert_allclose(poses.boxes_xyxy[order[0]], people.boxes_xyxy[order[1]], atol=1e-4)
    assert poses.classes is not None
    np.testing.assert_array_equal(poses.classes[order[0]], people.classes[order[1]])


def test_the_loss_of_a_batch_is_the_sum_over_its_images_and_reaches_every_output() -> None:
    from mdpose_edge.train.data import _stacked

    spec = make_spec(96, 64)
    torch.manual_seed(1)
    outputs = {head.name: torch.randn(2, *spec.head_shape(head), requires_grad=True) for head in spec.heads}

    def loss(images: list[People], rows: slice) -> dict[str, Tensor]:
        encoded = [FAMILY.encode(people, spec, LossConfig()) for people in images]
        targets = {name: _stacked([one[name] for one in encoded]) for name in encoded[0]}
        part = {name: tensor[rows] for name, tensor in outputs.items()}
        return dict(FAMILY.loss([part], targets, spec, LossConfig(), torch.Generator()).parts)

    images = [some_boxes(3), some_boxes(0)]
    whole, single = loss(images, slice(0, 2)), [loss([one], slice(i, i + 1)) for i, one in enumerate(images)]
    assert list(whole) == ["pose", "centre", "offset"]
    for name, part in whole.items():
        torch.testing.assert_close(part, single[0][name] + single[1][name])
    single[1]["pose"].backward(retain_graph=True)
    torch.stack(list(whole.values())).sum().backward()
    assert all(tensor.grad is not None and math.isfinite(tensor.grad.sum()) for tensor in outputs.values())


def test_a_network_begins_with_low_scores_of_every_class() -> None:
    config = NetworkConfig("test_resnet", channels=8, head_channels=16, components=2, heatmaps=False)
    spec = make_box_spec(config, InputSpec(64, 96), ("person", "ball"))
    (outputs,) = MixtureDenseNetwork(spec)(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))
    assert set(outputs) == set(spec.outputs)
    assert list(spec.outputs) == ["centre", "alpha", "offset", "mu_1", "sigma_1", "mu_2", "sigma_2"]
    assert outputs["centre"].shape == (1, 2, 16, 24) and outputs["mu_2"].shape == (1, 2, 16, 24)
    assert outputs["centre"].sigmoid().mean().item() == pytest.approx(0.1, abs=0.01)
    assert spread(outputs["sigma_1"], 1.0).mean().item() == pytest.approx(2.0, abs=0.1)


def test_what_finds_no_boxes_is_refused() -> None:
    training: object = FAMILY
    assert isinstance(training, BoxTraining)
    with pytest.raises(ConfigError, match=r"network\.heatmaps: expected false, of boxes without keypoints, got true"):
        training_spec("mixture_dense", NetworkConfig(), InputSpec(64, 64), NO_KEYPOINTS, ("ball",))
    with pytest.raises(ConfigError, match=r"family: expected one that finds boxes: .*mixture_dense.*, got mdpose"):
        training_spec("mdpose", None, InputSpec(64, 64), NO_KEYPOINTS, ("ball",))
