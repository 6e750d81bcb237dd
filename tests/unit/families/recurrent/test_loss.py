"""The losses against figures by the paper's formulas, made by loops apart from this code."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.base import People  # noqa: E402
from mdpose_edge.families.recurrent.loss import (  # noqa: E402
    assign_people,
    heat_loss,
    heat_of_zeros,
    heat_targets,
    map_distances,
    steps_said,
    stop_loss,
)
from mdpose_edge.families.recurrent.network import NetworkConfig, make_spec  # noqa: E402
from mdpose_edge.families.recurrent.targets import encode_people  # noqa: E402
from mdpose_edge.families.recurrent.training import FAMILY, LossConfig, assigned  # noqa: E402
from mdpose_edge.spec import InputSpec  # noqa: E402

GOLDENS = Path(__file__).parents[3] / "goldens"
SCENES = (
    "all_steps_high", "at_threshold", "exact", "nobody", "nobody_but_predicted", "none_predicted", "one", "over",
    "over_late", "twins", "under", "unlabelled",
)  # fmt: skip


def scene(name: str) -> dict[str, NDArray[np.float64]]:
    golden = np.load(GOLDENS / "recurrent_loss.npz")
    fields = {key.removeprefix(f"{name}_"): golden[key] for key in golden.files if key.startswith(f"{name}_")}
    return {key: value for key, value in fields.items() if key in FIELDS}


FIELDS = (
    "predicted", "truth", "labelled", "stop_logits", "predicted_count", "stop_target", "cost", "step_of_match",
    "person_of_match", "heat_loss_sum", "heat_loss_labelled_only", "stop_loss_sum", "grad_predicted",
    "grad_stop_logits",
)  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_counts_matches_and_losses_are_those_of_the_formulas(name: str) -> None:
    golden = scene(name)
    predicted = torch.tensor(golden["predicted"], requires_grad=True)
    logits = torch.tensor(golden["stop_logits"], requires_grad=True)
    truth, people = torch.tensor(golden["truth"]), len(golden["truth"])
    everything = torch.ones(people, predicted.shape[1], dtype=torch.bool)
    said = steps_said(logits)
    assert said == golden["predicted_count"]
    cost = map_distances(predicted[:said], truth, everything).detach().numpy()
    np.testing.assert_allclose(cost, golden["cost"], rtol=1e-7, atol=1e-7)
    pairs = assigned(predicted.detach(), truth, everything, min(said, people), chunk=len(logits))
    steps, whom = ([pair[side] for pair in pairs] for side in (0, 1))
    assert steps == golden["step_of_match"].tolist() and whom == golden["person_of_match"].tolist()
    heat = heat_loss(predicted[steps], truth[whom], everything[whom], importance=1.0)
    labelled = torch.tensor(golden["labelled"]).bool()[whom]
    assert heat.item() == pytest.approx(float(golden["heat_loss_sum"]), rel=1e-10)
    only = heat_loss(predicted[steps], truth[whom], labelled, importance=1.0)
    assert only.item() == pytest.approx(float(golden["heat_loss_labelled_only"]), rel=1e-10)
    stop = stop_loss(logits, people, said)
    assert stop.item() == pytest.approx(float(golden["stop_loss_sum"]), rel=1e-10)
    (heat + stop).backward()  # type: ignore[no-untyped-call]
    if "grad_predicted" in golden:
        np.testing.assert_allclose(predicted.grad, golden["grad_predicted"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(logits.grad, golden["grad_stop_logits"], rtol=1e-9, atol=1e-12)


def test_the_assignment_is_the_cheapest_of_all() -> None:
    for seed, (steps, people) in itertools.product(range(3), ((4, 4), (2, 4), (1, 3))):
        cost = np.random.default_rng(seed).uniform(0, 5, (steps, people))
        found = assign_people(cost)
        best = min(
            sum(cost[step, person] for step, person in enumerate(order))
            for order in itertools.permutations(range(people), steps)
        )
        assert [step for step, _ in found] == list(range(steps))
        assert sum(cost[pair] for pair in found) == pytest.approx(best)


def test_who_is_taken_in_one_chunk_is_not_given_again() -> None:
    truth = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    labelled = torch.ones(4, 2, dtype=torch.bool)
    predicted = truth[[2, 2, 2, 0]]
    whole, parts = (assigned(predicted, truth, labelled, 4, chunk) for chunk in (4, 2))
    assert sorted(person for _, person in parts) == sorted(person for _, person in whole) == [0, 1, 2, 3]
    assert dict(whole)[3] == dict(parts)[3] == 0 and 2 in (dict(parts)[0], dict(parts)[1])


def test_a_map_is_a_gaussian_around_the_keypoint_itself() -> None:
    (heat,) = heat_targets(torch.tensor([[[3.0, 5.5], [4.2, 1.7]]]), torch.tensor([[True, False]]), (8, 10), 1.5)
    for row, column in itertools.product(range(8), range(10)):
        squared = (column + 0.5 - 3.0) ** 2 + (row + 0.5 - 5.5) ** 2
        assert heat[0, row, column].item() == pytest.approx(math.exp(-squared / (2 * 1.5**2)), rel=1e-5)
    assert heat[0, 5, 2] == heat[0, 5, 3] and not heat[1].any()


def test_maps_of_zeros_cost_one_a_person() -> None:
    target = heat_targets(torch.tensor([[[32.0, 32.0]]]), torch.tensor([[True]]), (64, 64), 2.0)
    cost = heat_loss(torch.zeros_like(target), target, torch.tensor([[1.0]]), 1 + 20.0 * target[0]).item()
    assert cost == pytest.approx(heat_of_zeros(2.0, 20.0), rel=1e-4)


def test_maps_of_everybody_at_once_cost_what_maps_of_nobody_do() -> None:
    """Else a network that cannot tell two people apart gives both, and has nothing to gain by choosing one."""
    truth = targets()
    truth["keypoints"][0] = torch.tensor([[4.0, 4.0], [12.0, 12.0]])[:, None]
    truth["labelled"][0] = True
    config = LossConfig(heat_sigma=1.0)
    each = heat_targets(truth["keypoints"][0], truth["labelled"][0], (16, 16), 1.0)
    costs = {}
    for name, maps in (("right", each), ("all", each.amax(dim=0).expand(2, -1, -1, -1)), ("none", each * 0)):
        given = outputs(steps=2)
        for step in (1, 2):
            given[f"heat_{step}"][0] = maps[step - 1]
        costs[name] = loss_of(given, config, truth).parts["heat"].item()
    assert costs["right"] == pytest.approx(0.0, abs=1e-6)
    assert costs["all"] == pytest.approx(costs["none"], rel=1e-3) and costs["none"] == pytest.approx(2.0, rel=0.02)


SPEC = make_spec(NetworkConfig(backbone="test_resnet", channels=8, hidden=8, people=3), InputSpec(64, 64))


def outputs(steps: int = 3, batch: int = 2, passes: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    maps = {f"heat_{step}": torch.rand(batch, 17, 16, 16, generator=generator) for step in range(1, steps + 1)}
    return {
        **maps,
        "stop": torch.full((batch, steps, 1, 1), 2.0, requires_grad=True),
        "joint": torch.rand(batch, 17, 16, 16, generator=generator),
        "passes": torch.tensor(passes),
    }


def targets(batch: int = 2) -> dict[str, torch.Tensor]:
    """Two people in the first image, nobody in the others."""
    rng = np.random.default_rng(0)
    labelled = torch.zeros(batch, 2, 17, dtype=torch.bool)
    labelled[0] = torch.from_numpy(rng.random((2, 17)) < 0.7)
    keypoints = torch.from_numpy(rng.uniform(0, 16, (batch, 2, 17, 2)).astype(np.float32))
    return {"keypoints": keypoints, "labelled": labelled, "person_mask": labelled.any(dim=2)}


def loss_of(given: dict[str, torch.Tensor], config: LossConfig, truth: dict[str, torch.Tensor] | None = None):  # type: ignore[no-untyped-def]
    return FAMILY.loss(given, truth or targets(), SPEC, config, torch.Generator(), measure=True)


def test_what_is_not_labelled_and_whom_no_step_is_for_carries_no_loss() -> None:
    given = outputs()
    for step in (1, 2, 3):
        given[f"heat_{step}"].requires_grad_()
    truth = targets()
    loss_of(given, LossConfig(), truth).parts["heat"].backward()
    touched = torch.stack([given[f"heat_{step}"].grad.abs().sum(dim=(2, 3)) > 0 for step in (1, 2, 3)], dim=1)  # type: ignore[union-attr]
    assert touched[0].any(dim=1).tolist() == [True, True, False] and not touched[1].any()
    assert sorted(touched[0, :2].sum(dim=1).tolist()) == sorted(truth["labelled"][0].sum(dim=1).tolist())


def test_images_are_added_up_each_by_itself() -> None:
    both = loss_of(outputs(), LossConfig()).parts
    for name in both:
        alone = []
        for index in range(2):
            one = {k: v if k == "passes" else v[index : index + 1] for k, v in outputs().items()}
            alone.append(
                loss_of(one, LossConfig(), {k: v[index : index + 1] for k, v in targets().items()}).parts[name]
            )
        assert both[name].item() == pytest.approx(sum(part.item() for part in alone), rel=1e-5)


def test_the_stop_is_learned_from_its_pass_on() -> None:
    early, late = (loss_of(outputs(passes=passes), LossConfig(stop_after=5)) for passes in (5, 6))
    assert early.parts["stop"].item() == 0 and late.parts["stop"].item() > 0
    p = 1 / (1 + math.exp(-2.0))
    # Steps of p = 0.88: all three go on, two of them rightly in the first image, none in the second.
    assert late.parts["stop"].item() == pytest.approx(-2 * math.log(p) - 4 * math.log(1 - p), rel=1e-5)
    assert late.figures == pytest.approx({"count_error": (1 + 3) / 2, "p_person": p, "p_nobody": p}, rel=1e-5)


def test_people_who_show_no_keypoint_are_not_counted() -> None:
    labelled = np.array([[True, False], [False, False]])
    keypoints = np.full((2, 2, 2), 10.0, np.float32)
    people = People(keypoints, labelled, np.zeros((2, 2), np.float32), np.zeros((2, 4), np.float32))
    found = encode_people(people)
    assert found["person_mask"].tolist() == [True]
    np.testing.assert_array_equal(found["keypoints"], [[[2.5, 2.5], [0.0, 0.0]]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"heat_weight": -1}, r"loss.heat_weight: expected a number in \[0, 100\], got -1"),
        ({"heat_sigma": 0.0}, r"loss.heat_sigma: expected a number in \[0.25, 20\], got 0.0"),
        ({"stop_after": -1}, r"loss.stop_after: expected a number in \[0, 10000000\], got -1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        LossConfig(**options)  # type: ignore[arg-type]
