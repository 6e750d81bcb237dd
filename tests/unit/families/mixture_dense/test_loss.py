"""The losses against figures of the authors' code where it is right, and against the right ones where it is not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import Tensor  # noqa: E402

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.base import People  # noqa: E402
from mdpose_edge.families.mixture_dense.heads import Constants, mixture_dense_spec  # noqa: E402
from mdpose_edge.families.mixture_dense.loss import at_cells, focal_loss, l1_loss, log_joint, spread  # noqa: E402
from mdpose_edge.families.mixture_dense.training import FAMILY, LossConfig  # noqa: E402
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, ModelSpec  # noqa: E402

GOLDENS = Path(__file__).parents[3] / "goldens"
FLOOR = 9.0
"""The reference's: its min_sigma of 10 less the 1 by which ELU may be below 0."""


def golden(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / f"mixture_dense_{name}.npz").items()}


def people_of(figures: dict[str, Tensor]) -> Tensor:
    """Return the mask (3, 4) of those who have a visible keypoint."""
    return figures["hps_mask"].bool().any(dim=2)


def joint_of(figures: dict[str, Tensor], m: int, leaves: dict[str, Tensor]) -> Tensor:
    cells, people = figures["ind"], people_of(figures)
    mu, sigma, alpha = (at_cells(leaves[kind], cells)[people] for kind in ("mu", "sigma_raw", "alpha"))
    return log_joint(
        mu.view(-1, m, 17, 2),
        spread(sigma.view(-1, m, 2), FLOOR),
        alpha,
        figures["hps"][people].view(-1, 17, 2),
        figures["hps_mask"][people].view(-1, 17, 2)[..., 0].bool(),
        figures["V"],
    )


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_likelihood_and_its_gradients_are_the_true_ones(m: int) -> None:
    figures = golden("loss")
    kinds = ("mu", "sigma_raw", "alpha")
    leaves = {kind: figures[f"m{m}_{kind}"].clone().requires_grad_() for kind in kinds}
    nll = -joint_of(figures, m, leaves).logsumexp(dim=1)
    people = people_of(figures)
    torch.testing.assert_close(nll, figures[f"m{m}_nll_exact_per_person"][people], rtol=1e-9, atol=1e-9)
    loss = nll.sum() / (1 + people.sum())
    torch.testing.assert_close(loss, figures[f"m{m}_loss_exact_with_log_v"], rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    for kind, gradient in zip(kinds, gradients, strict=True):
        torch.testing.assert_close(gradient, figures[f"m{m}_grad_exact_{kind}"], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_authors_value_is_the_same_without_log_v(m: int) -> None:
    figures = golden("loss")
    people = people_of(figures)
    leaves = {kind: figures[f"m{m}_{kind}"] for kind in ("mu", "sigma_raw", "alpha")}
    seen = figures["hps_mask"][people].view(-1, 17, 2)[..., 0].double()
    without = -joint_of(figures, m, leaves).logsumexp(dim=1) - 2 * seen @ figures["V"].log()
    theirs = figures[f"m{m}_loss_mdn_no_clamp"]
    torch.testing.assert_close(without.sum() / (1 + people.sum()), theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["size", "offset"])
def test_l1_at_centres_is_the_authors(kind: str) -> None:
    figures = golden("loss")
    mask = figures["reg_mask"].bool()
    predicted = at_cells(figures[f"m2_{kind}"], figures["ind"])[mask]
    target = figures["wh" if kind == "size" else "reg"][mask]
    count = 2 * mask.sum()
    theirs = figures[f"m2_loss_{kind}_l1"] * (count + 1e-4) / count  # the code's epsilon
    torch.testing.assert_close(l1_loss(predicted, target) / mask.sum(), theirs, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("prefix", ["", "no_positive_"])
def test_the_focal_loss_is_the_authors_without_their_clamp(prefix: str) -> None:
    figures = golden("focal")
    logits = figures["focal_logits"].clone().requires_grad_()
    target = figures[f"{prefix}focal_target"]
    loss = focal_loss(logits, target) / max(1, int((target == 1).sum()))
    torch.testing.assert_close(loss, figures[f"{prefix}focal_loss_no_clamp"], rtol=1e-9, atol=0.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, figures[f"{prefix}focal_grad_no_clamp"], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("min_sigma", ["10p0", "2p0", "1p0"])
def test_the_spread_is_the_authors_where_no_clamp_acts(min_sigma: str) -> None:
    figures = golden("focal")
    raw = figures["raw"].clone().requires_grad_()
    ours = spread(raw, float(min_sigma.replace("p", ".")) - 1)
    theirs, slope = figures[f"sigma_min_{min_sigma}"], figures[f"dsigma_min_{min_sigma}"]
    free = (theirs > 1e-4) & (theirs < 1e5)
    torch.testing.assert_close(ours[free], theirs[free], rtol=1e-9, atol=0.0)
    (gradient,) = torch.autograd.grad(ours.sum(), raw)
    torch.testing.assert_close(gradient[free], slope[free], rtol=1e-9, atol=0.0)
    assert free.sum() > 10


def test_extremes_keep_a_finite_loss_and_gradient() -> None:
    """A component 400 cells away underflows any density; one that is certain has a log weight of 0."""
    mu = torch.tensor([0.0, 400.0]).view(1, 2, 1, 1).expand(1, 2, 17, 2).clone().requires_grad_()
    alpha = torch.tensor([[-90.0, 90.0]], requires_grad=True)
    sigma = torch.full((1, 2, 2), 1.0)
    seen = torch.ones(1, 17, dtype=torch.bool)
    joint = log_joint(mu, sigma, alpha, torch.zeros(1, 17, 2), seen, torch.tensor(COCO_KEYPOINTS.sigmas))
    loss = -joint.logsumexp(dim=1).sum()
    gradients = torch.autograd.grad(loss, [mu, alpha])
    assert math.isfinite(loss.item()) and all(torch.isfinite(g).all() for g in gradients)
    assert gradients[1][0, 0] == pytest.approx(-1.0)  # the component that is right is asked for


def make_spec(**options: object) -> ModelSpec:
    return mixture_dense_spec(
        InputSpec(64, 96), Constants(**{"components": 2, "sigma_floor": 1.0, "heatmaps": True, **options})
    )  # type: ignore[arg-type]


def batch_of(spec: ModelSpec, *images: People) -> dict[str, Tensor]:
    from mdpose_edge.train.data import _stacked

    encoded = [FAMILY.encode(people, spec, LossConfig()) for people in images]
    return {name: _stacked([one[name] for one in encoded]) for name in encoded[0]}


def somebody(count: int, labelled: bool = True) -> People:
    rng = np.random.default_rng(count)
    corner = rng.uniform((5, 5), (50, 30), (count, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + np.float32(20)], axis=1)
    points = corner[:, None] + rng.uniform(0, 20, (count, 17, 2)).astype(np.float32)
    mask = np.full((count, 17), labelled)
    return People(points, mask, corner + np.float32(10), boxes)


def random_outputs(spec: ModelSpec, batch: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {head.name: torch.randn(batch, *spec.head_shape(head), requires_grad=True) for head in spec.heads}


def test_the_loss_of_a_batch_is_the_sum_over_its_images() -> None:
    spec = make_spec(heatmaps=False)
    images = [somebody(3), somebody(1), somebody(0)]
    outputs = random_outputs(spec, 3)
    config, generator = LossConfig(), torch.Generator()
    whole = FAMILY.loss([outputs], batch_of(spec, *images), spec, config, generator, measure=True)
    single = [
        FAMILY.loss([{k: v[i : i + 1] for k, v in outputs.items()}], batch_of(spec, one), spec, config, generator)
        for i, one in enumerate(images)
    ]
    assert list(whole.parts) == ["pose", "centre", "size", "offset"]
    for name, part in whole.parts.items():
        torch.testing.assert_close(part, torch.stack([one.parts[name] for one in single]).sum())
    assert FAMILY.count(batch_of(spec, *images)) == 4
    assert whole.figures["component_most"] + whole.figures["component_least"] == pytest.approx(1.0)


def test_a_person_without_keypoints_has_a_centre_and_a_size_but_no_likelihood() -> None:
    spec = make_spec()
    outputs = random_outputs(spec, 1)
    parts = FAMILY.loss(
        [outputs], batch_of(spec, somebody(2, labelled=False)), spec, LossConfig(), torch.Generator()
    ).parts
    assert parts["pose"].abs() < 1e-6 and parts["heat_offset"] == 0
    assert parts["size"] > 0 and parts["centre"] > 0 and parts["heat"] > 0
    torch.stack(list(parts.values())).sum().backward()
    assert outputs["mu_1"].grad is not None and not outputs["mu_1"].grad.any()


def test_every_output_has_a_gradient_even_where_nobody_is() -> None:
    """DistributedDataParallel waits for the gradient of every parameter."""
    spec = make_spec()
    outputs = random_outputs(spec, 1)
    found = FAMILY.loss([outputs], batch_of(spec, somebody(0)), spec, LossConfig(), torch.Generator(), measure=True)
    assert set(found.parts) == set(FAMILY.parts)
    torch.stack(list(found.parts.values())).sum().backward()
    assert all(tensor.grad is not None for tensor in outputs.values())


def test_half_precision_outputs_are_computed_in_float32() -> None:
    spec = make_spec()
    outputs = {name: (100 * tensor.detach()).bfloat16() for name, tensor in random_outputs(spec, 1).items()}
    targets = batch_of(spec, somebody(2))
    half = FAMILY.loss([outputs], targets, spec, LossConfig(), torch.Generator()).parts
    full = FAMILY.loss(
        [{k: v.float() for k, v in outputs.items()}], targets, spec, LossConfig(), torch.Generator()
    ).parts
    assert all(torch.equal(half[name], full[name]) for name in full)


def test_a_weight_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss.pose_weight: expected a number in \[0, 100\], got -1"):
        LossConfig(pose_weight=-1)
