"""Constructed measurements, since the AP of a random network is 0."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.check.limits import Limits
from mdpose_edge.check.measure import ImagePair, Measurement
from mdpose_edge.check.measures.accuracy import Accuracy, AccuracyLimits, SliceAccuracy, judge_accuracy
from mdpose_edge.check.measures.calibration import judge_calibration
from mdpose_edge.check.measures.coverage import judge_coverage
from mdpose_edge.check.measures.outputs import TensorError, judge_outputs
from mdpose_edge.check.measures.scores import judge_scores
from mdpose_edge.check.measures.settings import judge_settings
from mdpose_edge.check.measures.shift import judge_shift
from mdpose_edge.check.measures.slices import SLICES
from mdpose_edge.check.verdict import Verdict
from mdpose_edge.check.verdict import judge as judge_measurement
from mdpose_edge.errors import DataError
from mdpose_edge.evaluate import FIGURES
from mdpose_edge.families import mixture_measures
from mdpose_edge.families.measure import Finding, Measured, Pair
from mdpose_edge.families.mixture_measures import judge_divergence, judge_likelihood
from mdpose_edge.poses import Poses

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.uniform(0.3, 1.0, 500)
NLL = RANDOM.uniform(3.0, 6.0, (80, 1))


@dataclass(frozen=True)
class Case:
    """What each measure has counted; None for one that takes no part."""

    settings: tuple[str, ...] | None
    calibration: tuple[int, float | None] | None
    accuracy: Accuracy | None
    coverage: tuple[dict[float, Pair], int] | None
    scores: tuple[NDArray[np.float64], NDArray[np.float64]]
    shifts: NDArray[np.float64]
    outputs: tuple[TensorError, ...]
    nll: NDArray[np.float64] | None
    divergence: tuple[tuple[float, float], ...]
    incomparable: str = ""
    images: tuple[ImagePair, ...] = ()

    def findings(self, limits: Limits) -> Iterator[Finding]:
        yield judge_settings(self.settings)
        if self.calibration is not None:
            yield from judge_calibration(*self.calibration, limits.calibration)
        if self.accuracy is not None:
            yield from judge_accuracy(self.accuracy, limits.accuracy)
        if self.coverage is not None:
            yield from judge_coverage(*self.coverage, limits.coverage)
        yield from judge_scores(*self.scores, limits.scores)
        yield judge_shift(self.shifts, limits.shift)
        yield judge_outputs(self.outputs, self.incomparable, limits.outputs)
        if self.nll is not None:
            yield judge_likelihood(self.nll, mixture_measures.LIMITS)
        yield from judge_divergence(self.divergence, self.incomparable, mixture_measures.LIMITS)


Change = Callable[[Case], Case]


def judge(case: Case, limits: Limits | None = None) -> Verdict:
    return judge_measurement(Measurement((Measured(tuple(case.findings(limits or Limits()))),), (), case.images))


def equal() -> Case:
    """Both sides alike in everything."""
    same = Pair(0.6, 0.6)
    return Case(
        settings=(),
        calibration=None,
        accuracy=Accuracy(
            dict.fromkeys(FIGURES, same), same, tuple(SliceAccuracy(one.name, 50, same) for one in SLICES)
        ),
        coverage=({0.5: same, 0.9: same}, 1000),
        scores=(SCORES, SCORES),
        shifts=np.zeros(50),
        outputs=(TensorError("o_p3", 0.0, 1.0, 0.0),),
        nll=np.repeat(NLL, 2, axis=1),
        divergence=((0.0, 0.0),) * 10,
    )


def figure(name: str, candidate: float) -> Change:
    def change(case: Case) -> Case:
        assert case.accuracy is not None
        pairs = {**case.accuracy.figures, name: Pair(candidate, 0.6)}
        return dataclasses.replace(case, accuracy=dataclasses.replace(case.accuracy, figures=pairs))

    return change


def deployed(candidate: float) -> Change:
    def change(case: Case) -> Case:
        assert case.accuracy is not None
        return dataclasses.replace(case, accuracy=dataclasses.replace(case.accuracy, deployed=Pair(candidate, 0.6)))

    return change


def slices(candidate: float, people: int) -> Change:
    def change(case: Case) -> Case:
        assert case.accuracy is not None
        found = tuple(SliceAccuracy(one.name, people, Pair(candidate, 0.6)) for one in SLICES)
        return dataclasses.replace(case, accuracy=dataclasses.replace(case.accuracy, slices=found))

    return change


def nll(rise: float) -> Change:
    return lambda case: dataclasses.replace(case, nll=np.concatenate([NLL + rise, NLL], axis=1))


def covered(share: float, coordinates: int) -> Change:
    return lambda case: dataclasses.replace(case, coverage=({0.9: Pair(share, 0.9)}, coordinates))


def scores(factor: float, count: int = 500) -> Change:
    return lambda case: dataclasses.replace(case, scores=(factor * SCORES[:count], SCORES[:count]))


def shifted(part: float, people: int = 50) -> Change:
    return lambda case: dataclasses.replace(case, shifts=np.full(people, part))


def outputs(*relative: float) -> Change:
    errors = tuple(TensorError(f"head{i}", one, 1.0, one) for i, one in enumerate(relative))
    return lambda case: dataclasses.replace(case, outputs=errors)


def apart(components: float, weights: float) -> Change:
    return lambda case: dataclasses.replace(case, divergence=((weights, components),) * 4)


def calibrated_on(images: int, log_odds: float | None) -> Change:
    return lambda case: dataclasses.replace(case, calibration=(images, log_odds))


def others(settings: tuple[str, ...] | None, note: str, **changes: object) -> Change:
    nothing: dict[str, object] = {"settings": settings, "divergence": (), "outputs": (), "incomparable": note}
    return lambda case: dataclasses.replace(case, **{**nothing, **changes})  # type: ignore[arg-type]


def other_settings(case: Case) -> Case:
    return dataclasses.replace(case, settings=("input.resize",))


def test_equal_sides_hold_with_no_change() -> None:
    verdict = judge(equal())
    assert verdict.held
    assert {finding.change for finding in verdict.findings} == {0.0}
    assert {finding.held for finding in verdict.findings} == {True}


@pytest.mark.parametrize(
    ("change", "fallen"),
    [
        pytest.param(figure("AP", 0.5901), set(), id="AP within 1 point"),
        pytest.param(figure("AP", 0.5899), {"AP"}, id="AP beyond 1 point"),
        pytest.param(figure("AP", 0.7), set(), id="AP better"),
        pytest.param(figure("APL", 0.5801), set(), id="APL within 2 points"),
        pytest.param(figure("APL", 0.5799), {"APL"}, id="APL beyond 2 points"),
        pytest.param(deployed(0.5799), {"AP_deployed"}, id="AP at the threshold of use"),
        pytest.param(slices(0.57, 30), {f"AP_{one.name}" for one in SLICES}, id="slices"),
        pytest.param(slices(0.0, 29), set(), id="slices of too few"),
        pytest.param(nll(0.04), set(), id="NLL within"),
        pytest.param(nll(0.06), {"nll"}, id="NLL beyond"),
        pytest.param(nll(-1.0), set(), id="NLL better"),
        pytest.param(nll(np.inf), {"nll"}, id="NLL infinite"),
        pytest.param(covered(0.86, 200), {"coverage_90"}, id="sigma too small"),
        pytest.param(covered(0.94, 200), {"coverage_90"}, id="sigma too large"),
        pytest.param(covered(0.5, 199), set(), id="coverage of too few"),
        pytest.param(scores(0.98), set(), id="scores a little lower"),
        pytest.param(scores(0.8), {"score_distance", "score_shift"}, id="scores lower"),
        pytest.param(scores(0.8, 19), set(), id="scores of too few"),
        pytest.param(shifted(0.0099), set(), id="poses moved a little"),
        pytest.param(shifted(0.0101), {"pose_shift"}, id="poses moved"),
        pytest.param(shifted(0.5, 19), set(), id="poses of too few"),
        pytest.param(outputs(0.1, 0.199), set(), id="head tensors within"),
        pytest.param(outputs(0.201, 0.1), {"output_error"}, id="one head tensor beyond"),
        pytest.param(outputs(np.nan), {"output_error"}, id="a head tensor that is not a number"),
        pytest.param(apart(0.06, 0.0), {"component_kl"}, id="components apart"),
        pytest.param(apart(0.0, 0.03), {"weight_kl"}, id="weights apart"),
        pytest.param(other_settings, {"settings"}, id="another resize policy"),
        pytest.param(calibrated_on(100, 2.9), set(), id="a calibration set as it should be"),
        pytest.param(calibrated_on(99, -9.0), {"calibration_images"}, id="too few calibration images"),
        pytest.param(calibrated_on(512, 3.1), {"swapped_colours"}, id="red and blue swapped in calibration"),
        pytest.param(apart(np.nan, 0.0), {"component_kl"}, id="not a number"),
    ],
)
def test_each_figure_has_a_limit(change: Change, fallen: set[str]) -> None:
    verdict = judge(change(equal()))
    assert {finding.key for finding in verdict.fallen} == fallen
    assert verdict.held is not bool(fallen)


def test_the_budget_is_the_callers() -> None:
    worse = figure("AP", 0.57)(equal())
    assert not judge(worse).held
    assert judge(worse, Limits(AccuracyLimits(max_drop=3.5))).held


def test_without_annotations_the_rest_is_judged() -> None:
    bare = dataclasses.replace(equal(), accuracy=None, coverage=None, nll=None)
    assert judge(bare).held
    assert not judge(apart(1.0, 0.0)(bare)).held


def test_a_reference_at_zero_proves_nothing() -> None:
    (ap,) = (f for f in judge(_zero(equal())).findings if f.key == "AP")
    assert (ap.held, ap.note) == (None, "the reference is at 0")


def test_nothing_to_judge_is_an_error() -> None:
    nothing = np.zeros(0)
    with pytest.raises(DataError, match="a figure to judge by"):
        judge(others(None, "different cells", accuracy=None, coverage=None, nll=None, scores=(nothing, nothing),
                     shifts=nothing)(equal()))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        pytest.param(
            others(("input.resize",), "different cells"),
            {
                "settings": "",
                "output_error": "different cells",
                "component_kl": "different cells",
                "weight_kl": "different cells",
            },
            id="another input size",
        ),
        pytest.param(
            others(None, "one side has no mixture"),
            {
                "settings": "one side has no settings",
                "component_kl": "one side has no mixture",
                "weight_kl": "one side has no mixture",
            },
            id="results alone",
        ),
        pytest.param(
            calibrated_on(100, None),
            {"swapped_colours": "too few images to tell"},
            id="no colours",
        ),
    ],
)
def test_what_cannot_be_compared_is_listed_and_not_judged(change: Change, notes: dict[str, str]) -> None:
    found = {finding.key: finding for finding in judge(change(equal())).findings}
    assert {key: found[key].note for key in notes} == notes
    assert {key for key in notes if found[key].held is None} == {key for key, note in notes.items() if note}
    assert all(found[key].state == f"not judged: {note}" for key, note in notes.items() if note)


def test_equal_settings_alone_hold_nothing() -> None:
    nothing = np.zeros(0)
    bare = {"accuracy": None, "coverage": None, "nll": None, "scores": (nothing, nothing), "shifts": nothing}
    with pytest.raises(DataError, match=r"a figure to judge by, got none .*different cells"):
        judge(others((), "different cells", **bare)(equal()))
    unequal = others(("input.resize",), "different cells", **bare)
    assert {finding.key for finding in judge(unequal(equal())).fallen} == {"settings"}


@pytest.mark.parametrize(
    ("images", "said"), [(1, "only 1 image scatter"), (99, "only 99 images scatter"), (100, ""), (5000, "")]
)
def test_a_small_sample_is_cautioned_about(images: int, said: str) -> None:
    nobody = Poses(np.zeros((0, 17, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 17, 2), np.float32))
    seen = tuple(ImagePair(index, nobody, nobody, 0.0) for index in range(images))
    verdict = judge(dataclasses.replace(equal(), images=seen))
    assert bool(verdict.caution) is bool(said)
    assert said in verdict.caution
    assert verdict.to_json_dict()["caution"] == verdict.caution


def test_the_sentence_says_counts_and_settings_as_they_are() -> None:
    few, letterbox = judge(calibrated_on(4, -9.0)(equal())), judge(other_settings(equal()))
    assert few.sentence().endswith(": 4 calibration images (at least 100)")
    assert letterbox.sentence().endswith(": settings that differ: input.resize")


def test_the_sentence_names_what_fell() -> None:
    assert judge(equal()).sentence() == "held: 22 figures are within their limits"
    assert "AP by -5 (limit 1 AP points)" in judge(figure("AP", 0.55)(equal())).sentence()


def test_the_document_is_strict_json() -> None:
    document = judge(nll(np.inf)(equal())).to_json_dict()
    text = json.dumps(document, allow_nan=False)
    (row,) = (f for f in json.loads(text)["findings"] if f["key"] == "nll")
    assert (row["change"], row["held"]) == (None, False)


def _zero(case: Case) -> Case:
    assert case.accuracy is not None
    figures = dict.fromkeys(FIGURES, Pair(0.0, 0.0))
    return dataclasses.replace(case, accuracy=dataclasses.replace(case.accuracy, figures=figures))
