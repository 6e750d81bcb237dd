"""Flow, likelihood and losses against the authors' figures; the update against the decoder's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from mdpose_edge.families.das import update
from mdpose_edge.families.das.flow import RealNVP, log_density
from mdpose_edge.families.das.loss import (
    Joints,
    depth_loss,
    errors_of,
    flow_log_density,
    focal_loss,
    laplace_nll,
    scale_of,
    updated,
)

GOLDENS = Path(__file__).parents[3] / "goldens"


def flow_of(dimensions: int) -> RealNVP:
    golden = np.load(GOLDENS / "das_flow.npz")
    prefix = f"flow{dimensions}d_state."
    state = {name.removeprefix(prefix): golden[name] for name in golden if name.startswith(prefix)}
    flow = RealNVP(dimensions).double()
    np.testing.assert_array_equal(flow.mask.numpy(), state.pop("mask"))
    flow.load_state_dict({name: torch.from_numpy(array.astype(np.float64)) for name, array in state.items()})
    return flow


def flows() -> dict[int, dict[str, torch.Tensor]]:
    return {dimensions: dict(flow_of(dimensions).named_parameters()) for dimensions in (2, 3)}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_flow_is_the_authors(dimensions: int) -> None:
    golden, flow = np.load(GOLDENS / "das_flow.npz"), flow_of(dimensions)
    points = torch.from_numpy(golden[f"flow{dimensions}d_points"])
    z, log_det = flow.inverse(points)
    np.testing.assert_allclose(z.detach(), golden[f"flow{dimensions}d_z"], rtol=1e-9)
    np.testing.assert_allclose(log_det.detach(), golden[f"flow{dimensions}d_log_det"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(flow(points).detach(), golden[f"flow{dimensions}d_log_prob"], rtol=1e-9)
    np.testing.assert_allclose(log_density(dict(flow.named_parameters()), points).detach(), flow(points).detach())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_likelihood_is_exact_and_so_are_its_gradients(dimensions: int) -> None:
    """Figures of a scale without our least one: it is set to theirs."""
    golden, prefix = np.load(GOLDENS / "das_rle.npz"), f"d{dimensions}_"
    prediction, target, raw = (torch.from_numpy(golden[prefix + n]) for n in ("prediction", "target", "sigma_raw"))
    weight = torch.from_numpy(golden[prefix + "weight"])
    prediction.requires_grad_(True)
    raw.requires_grad_(True)
    known = weight[..., 0] > 0
    solid = torch.from_numpy(golden[prefix + "is_3d"]).any(dim=1) & (dimensions == 3)
    scales = raw.sigmoid() + (1e-9 if dimensions == 3 else 0.0)
    errors = prediction - target  # the code's sign, which the figures of the flow have
    if dimensions == 2:
        errors, scales = (torch.cat([t, torch.ones_like(t[..., :1])], dim=2) for t in (errors, scales))
    nll = laplace_nll(errors, scales, solid) - flow_log_density(errors / scales, solid, known, flows())
    expected = golden[prefix + "exact_nll_per_joint"]
    np.testing.assert_allclose(nll.detach()[known], expected[known.numpy()], rtol=1e-6)
    loss = (nll * known).sum() / len(prediction)
    assert loss.item() == pytest.approx(float(golden[prefix + "exact_loss"]), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert prediction.grad is not None and raw.grad is not None
    np.testing.assert_allclose(prediction.grad, golden[prefix + "exact_grad_prediction"], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(raw.grad, golden[prefix + "exact_grad_sigma_raw"], rtol=1e-5, atol=1e-8)


def test_the_losses_of_the_head_agree_with_the_authors_code() -> None:
    golden = np.load(GOLDENS / "das_head_loss.npz")
    positives, images = len(golden["positive_index"]), 2
    logits, labels = torch.from_numpy(golden["class_logits"]), torch.from_numpy(golden["labels"])
    found = focal_loss(logits, labels == 0) / (positives + images)
    assert found.item() == pytest.approx(float(golden["loss_cls"]), rel=1e-6)
    predictions, targets = (torch.from_numpy(golden[f"positive_{n}"]) for n in ("predictions", "targets"))
    solid = (targets[:, 3:48].view(-1, 15, 3)[..., 2] != 0).any(dim=1)
    depth = depth_loss(predictions[:, 2], 20 * targets[:, 2])[solid].mean()
    assert depth.item() == pytest.approx(float(golden["loss_depth"]), rel=1e-6)
    assert 0 < solid.sum() < positives
    joints = torch.from_numpy(golden["uvd_targets_from_cell"])
    target = Joints(joints[..., :2], joints[..., 2])
    known = targets[:, 48:63] > 0
    total = 0.0
    scales = predictions[:, 48:].view(-1, 15, 3).sigmoid() + 1e-9
    for uvd in (predictions[:, 3:48], torch.from_numpy(golden["positive_updated_uvd"])):
        said = Joints(uvd.view(-1, 15, 3)[..., :2], uvd.view(-1, 15, 3)[..., 2])
        errors = -errors_of(said, target)
        nll = laplace_nll(errors, scales, solid) - flow_log_density(errors / scales, solid, known, flows())
        total += nll[known].mean().item() / 2
    assert total == pytest.approx(float(golden["exact_nll_mean_per_visible_joint_and_stage"]), rel=1e-5)
    centerness = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(golden["positive_centerness_logit"]), torch.from_numpy(golden["positive_centerness_target"])
    )
    assert centerness.item() == pytest.approx(float(golden["loss_centerness"]), rel=1e-6)


def test_a_joint_that_is_not_known_teaches_nothing_and_extreme_errors_stay_finite() -> None:
    errors = torch.full((1, 2, 3), 1e6, requires_grad=True)
    known = torch.tensor([[True, False]])
    scales = scale_of(torch.full((1, 2, 3), -200.0))
    assert scales.min() >= 1e-3
    weights = {n: {k: p.float() for k, p in w.items()} for n, w in flows().items()}
    density = flow_log_density(errors / scales, torch.tensor([True]), known, weights)
    assert density[0, 1] == 0 and torch.isfinite(density).all()
    (laplace_nll(errors, scales, torch.tensor([False])) - density)[known].sum().backward()  # type: ignore[no-untyped-call]
    assert errors.grad is not None and torch.isfinite(errors.grad).all()
    assert errors.grad[0, 1].abs().max() == 0


def test_training_updates_as_the_decoder_does() -> None:
    rng = np.random.default_rng(0)
    uv, dz = rng.normal(0, 2.5, (2, 10, 6, 7)).astype(np.float32), rng.normal(0, 1, (2, 5, 6, 7)).astype(np.float32)
    images, cells = torch.tensor([0, 1, 1]), torch.tensor([0, 20, 41])
    maps, depths = torch.from_numpy(uv).requires_grad_(True), torch.from_numpy(dz)
    first = Joints(
        maps.flatten(2)[images, :, cells].view(3, 5, 2),
        depths.flatten(2)[images, :, cells],
    )
    said = updated(maps, depths, first, images, cells, 2)
    for i in range(3):
        image = int(images[i])
        offsets, deep = update.updated(uv[image].reshape(5, 2, 6, 7), dz[image], cells[i : i + 1].numpy(), 2)
        np.testing.assert_allclose(said.uv[i].detach(), offsets[..., 0], atol=1e-5)
        np.testing.assert_allclose(said.dz[i].detach(), deep[..., 0], atol=1e-5)
    said.uv.sum().backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None and maps.grad.flatten(2)[0, :, 20:].abs().sum() > 0
