"""What the gate sees of the steps: counts that differ, and errors that grow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.families.heat_sigma import prior
from mdpose_edge.families.measure import Finding, Observation, ObservedImage, Truth
from mdpose_edge.families.recurrent.heads import HEAT_THRESHOLD, STOP_THRESHOLD, Constants, recurrent_spec
from mdpose_edge.families.recurrent.measures import measures, step_errors
from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, ModelSpec

Heads = dict[str, NDArray[np.float32]]
NOBODY = Poses.empty(17)


def make_spec(size: int = 32) -> ModelSpec:
    constants = Constants(3, STOP_THRESHOLD, HEAT_THRESHOLD, prior(COCO_KEYPOINTS.sigmas))
    return recurrent_spec(InputSpec(size, size), constants)


def said(count: int, seed: int = 0) -> Heads:
    """Head tensors of so many people."""
    rng = np.random.default_rng(seed)
    heads = {f"heat_{step}": rng.normal(0, 1, (1, 17, 8, 8)).astype(np.float32) for step in (1, 2, 3)}
    return {**heads, "stop": np.where(np.arange(3) < count, 2.0, -2.0).astype(np.float32).reshape(1, 3, 1, 1)}


def image(candidate: Heads | None, reference: Heads, people: int | None = None) -> ObservedImage:
    truth = None
    if people is not None:
        truth = Truth(1, np.zeros((people, 17, 2)), np.ones((people, 17), np.bool_), np.ones(people))
    pixels = np.zeros((8, 8, 3), np.uint8)
    sides = (Observation(NOBODY, NOBODY, heads) for heads in (candidate, reference))
    return ObservedImage(pixels, *sides, truth)


def found(images: list[ObservedImage], candidate: ModelSpec, reference: ModelSpec | None) -> dict[str, Finding]:
    (measure,) = measures(candidate, reference)
    for one in images:
        measure.add(one)
    return {finding.key: finding for finding in measure.result().findings}


def test_counts_are_compared_with_each_other_and_with_the_truth() -> None:
    images = [
        image(said(2), said(3), 3),
        image(said(1), said(1), 1),
        image(said(0), said(0), 2),
        image(said(2), said(1), 1),
    ]
    findings = found(images, make_spec(), make_spec())
    assert findings["stop_flips"].worse == 50.0 and findings["stop_flips"].held is False
    counts = findings["count_error"]
    assert (counts.candidate, counts.reference) == ((1 + 0 + 2 + 1) / 4, (0 + 0 + 2 + 0) / 4)
    assert counts.worse == 0.5 and counts.held is False


def test_a_steps_error_is_that_of_the_images_in_which_it_is_a_person() -> None:
    one, two = said(1, seed=1), said(2, seed=2)
    off = {name: tensor.copy() for name, tensor in two.items()}
    off["heat_2"] += np.float32(0.5)
    off["heat_3"] += np.float32(9.0)
    wild = {**one, "heat_2": one["heat_2"] * 5}
    findings = found([image(wild, one), image(off, two)], make_spec(), make_spec())
    error = findings["step_error"]
    assert error.worse == pytest.approx(100 * 0.5 / two["heat_2"].std(), rel=1e-5)
    assert error.label == "error of the maps of step 2" and error.held is False
    assert "count_error" not in findings


def test_nothing_is_judged_where_one_side_has_no_steps_or_other_cells() -> None:
    findings = found([image(said(1), said(1), 1)], make_spec(), None)
    assert {finding.note for finding in findings.values()} == {"one side has no steps"}
    findings = found([image(said(1), said(1), 1)], make_spec(), make_spec(size=64))
    assert findings["step_error"].note == "different cells" and findings["count_error"].held


def test_a_step_without_anybody_has_no_error() -> None:
    errors = step_errors(np.array([[4, 0, 4, 1], [0, 0, 0, 0]]))
    assert errors[0] == 50.0 and np.isnan(errors[1])
