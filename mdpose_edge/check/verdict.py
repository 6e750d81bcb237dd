"""Figures become a verdict: each change beside its limit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mdpose_edge.check.measurement import Accuracy, Divergence, Measurement, Pair, Scores, Uncertainty
from mdpose_edge.errors import ConfigError, DataError

HEADLINE_FIGURES = ("AP50", "AP75", "APM", "APL", "AR")
"""Beside AP itself."""
FEW_IMAGES = 100
"""Below so many, accuracy and scores may scatter by more than their limits: docs/gate.md has figures."""

Unit = Literal[
    "AP points",
    "nats per keypoint",
    "nats per image",
    "% of coordinates",
    "score",
    "distance",
    "settings",
    "nats",
    "images",
]


@dataclass(frozen=True)
class Limits:
    """How far a candidate may fall behind its reference. Where they come from is measured in docs/gate.md."""

    max_drop: float = 1.0
    """AP points, of COCO's AP."""
    part_factor: float = 2.0
    """Times `max_drop` for figures that rest on one threshold or on a part of the people: they scatter more than AP,
    which is a mean over ten thresholds and everybody."""
    min_people: int = 30
    """In a slice that is judged: with fewer, one person is worth more than the limit."""
    nll: float = 0.05
    """Nats per keypoint, by which the mean over people may rise: as if every sigma were off by a factor of 1.25."""
    coverage: float = 3.0
    """Points, up or down, of the share of coordinates within an interval of sigma."""
    min_coordinates: int = 200
    """For a coverage that is judged: the limit is then six coordinates that change sides."""
    score_distance: float = 0.1
    """Kolmogorov-Smirnov, between the scores that both give the same people."""
    score_shift: float = 0.02
    """Of the median score, up or down: a threshold chosen on the reference would no longer mean the same."""
    min_scores: int = 20
    """For scores that are judged: with fewer, two poses that trade sides of a gap are worth more than the limit."""
    component_kl: float = 0.05
    """Nats per keypoint: every coordinate moved by 0.22 of its sigma, or every sigma off by a factor of 1.25."""
    weight_kl: float = 0.02
    """Nats per image, between the weights of the components."""
    calibration_images: int = 100
    """At least, for INT8: with fewer, ranges hang on single images, and whether they fit others is luck."""
    swapped_colours: float = 3.0
    """Nats: odds of 20 to 1 that the calibration inputs have red and blue swapped."""

    def __post_init__(self) -> None:
        """Refuse a budget that nothing or everything would hold."""
        if not 0 <= self.max_drop < math.inf:
            got, do = f"{self.max_drop}", "correct it"
            raise ConfigError("--max-drop", expected="AP points, 0 or more", got=got, do=do)


@dataclass(frozen=True)
class Finding:
    """One figure, judged or not."""

    key: str
    """For programs."""
    group: str
    """What it is about, for people."""
    label: str
    unit: Unit
    candidate: float | None
    reference: float | None
    """None for a figure that only both together have."""
    change: float | None
    """Candidate less reference; for a distance the distance itself."""
    worse: float | None
    """How far the change goes in the direction that counts against the candidate."""
    limit: float
    """On `worse`."""
    note: str = ""
    """Why it is not judged."""

    @property
    def held(self) -> bool | None:
        """Say whether it is within the limit; None where it is not judged."""
        if self.note or self.worse is None:
            return None
        return self.worse <= self.limit  # so written, NaN does not hold

    @property
    def state(self) -> str:
        """Say it in words."""
        return {True: "held", False: "fell short", None: f"not judged: {self.note}"}[self.held]


@dataclass(frozen=True)
class Verdict:
    """All findings, and whether every one that is judged held."""

    findings: tuple[Finding, ...]
    limits: Limits
    caution: str = ""
    """What to keep in mind when reading it, or ""."""

    @property
    def held(self) -> bool:
        """False where one finding fell short."""
        return not self.fallen

    @property
    def fallen(self) -> tuple[Finding, ...]:
        """Those that fell short."""
        return tuple(finding for finding in self.findings if finding.held is False)

    def sentence(self) -> str:
        """Say it in one sentence."""
        judged = sum(finding.held is not None for finding in self.findings)
        if self.held:
            figures = "1 figure is within its limit" if judged == 1 else f"{judged} figures are within their limits"
            return f"held: {figures}"
        worst = ", ".join(_excess(finding) for finding in self.fallen[:3])
        more = f" and {len(self.fallen) - 3} more" if len(self.fallen) > 3 else ""
        return f"fell short in {len(self.fallen)} of {judged} figures: {worst}{more}"

    def to_json_dict(self) -> dict[str, Any]:
        """Give it ready for json.dump; an infinite change becomes null, as JSON has none."""
        findings = [{**_finite(asdict(finding)), "held": finding.held} for finding in self.findings]
        verdict = {"held": self.held, "sentence": self.sentence(), "caution": self.caution}
        return {**verdict, "findings": findings, "limits": asdict(self.limits)}


def judge(measurement: Measurement, limits: Limits | None = None) -> Verdict:
    """Hold every figure against its limit.

    Raises:
        DataError: there is none that can be judged; that settings agree says nothing of what was run.
    """
    limits = limits or Limits()
    findings = tuple(_findings(measurement, limits))
    if all(finding.held is None or (finding.held and finding.key == "settings") for finding in findings):
        notes = sorted({finding.note for finding in findings if finding.note})
        do = "check on more images, or ones with people that the reference finds"
        raise DataError("the check", expected="a figure to judge by", got=f"none ({'; '.join(notes)})", do=do)
    return Verdict(findings, limits, _caution(len(measurement.images)))


def _caution(images: int) -> str:
    if images >= FEW_IMAGES:
        return ""
    count = "1 image" if images == 1 else f"{images} images"
    return f"figures of only {count} scatter: judge on {FEW_IMAGES} and more"


def _findings(measurement: Measurement, limits: Limits) -> Iterator[Finding]:
    yield _settings(measurement.settings_apart)
    if measurement.calibration_images is not None:
        yield _calibration(measurement.calibration_images, limits)
        yield _colours(measurement.swapped_colours, limits)
    if measurement.accuracy is not None:
        yield from _accuracy(measurement.accuracy, limits)
    if measurement.uncertainty is not None:
        yield from _uncertainty(measurement.uncertainty, limits)
    yield from _scores(measurement.scores, limits)
    known_by_results = measurement.settings_apart is None
    note = "one side has no mixture" if known_by_results else "different cells"
    yield from _divergence(measurement.divergence, limits, note)


def _settings(apart: tuple[str, ...] | None) -> Finding:
    if apart is None:
        label, note = "settings that differ", "one side has no settings"
        return Finding("settings", "Settings", label, "settings", None, None, None, None, 0.0, note)
    count = float(len(apart))
    label = f"settings that differ: {', '.join(apart) or 'none'}"
    return Finding("settings", "Settings", label, "settings", None, None, count, count, 0.0)


def _calibration(images: int, limits: Limits) -> Finding:
    missing = float(limits.calibration_images - images)
    label = f"calibration images (at least {limits.calibration_images})"
    return Finding("calibration_images", "Calibration", label, "images", images, None, -missing, missing, 0.0)


def _colours(log_odds: float | None, limits: Limits) -> Finding:
    label = "log odds that calibration swapped red and blue"
    limit, note = limits.swapped_colours, "too few images to tell" if log_odds is None else ""
    return Finding("swapped_colours", "Calibration", label, "nats", None, None, log_odds, log_odds, limit, note)


def _accuracy(accuracy: Accuracy, limits: Limits) -> Iterator[Finding]:
    part = limits.part_factor * limits.max_drop
    yield _drop("AP", "AP", accuracy.figures["AP"], limits.max_drop)
    for name in HEADLINE_FIGURES:
        yield _drop(name, name, accuracy.figures[name], part)
    yield _drop("AP_deployed", "AP at the threshold of use", accuracy.deployed, part)
    for found in accuracy.slices:
        few = f"{found.people} people, fewer than {limits.min_people}" if found.people < limits.min_people else ""
        yield _drop(f"AP_{found.slice.name}", f"AP, {found.slice.name}", found.ap, part, few)


def _drop(key: str, label: str, pair: Pair, limit: float, note: str = "") -> Finding:
    """Judge a figure in [0, 1] that should not fall."""
    candidate, reference = points = _in_percent(pair)
    if candidate is None or reference is None:
        return Finding(key, "Accuracy", label, "AP points", *points, None, None, limit, "no such people")
    change = candidate - reference
    if not reference:
        note = note or "the reference is at 0"
    return Finding(key, "Accuracy", label, "AP points", *points, change, -change, limit, note)


def _uncertainty(uncertainty: Uncertainty, limits: Limits) -> Iterator[Finding]:
    group = "Likelihood and uncertainty"
    means = [float(mean) for mean in uncertainty.nll.mean(axis=0)] if len(uncertainty.nll) else [np.nan] * 2
    nll = Pair(*(None if np.isnan(mean) else mean for mean in means))
    note = "" if len(uncertainty.nll) else "no labelled people"
    rise = _change(nll)
    label = "NLL of the annotated people"
    yield Finding(
        "nll", group, label, "nats per keypoint", *nll, rise, rise, limits.nll, note or _known(rise, "mixture")
    )
    few = f"{uncertainty.coordinates} coordinates, fewer than {limits.min_coordinates}"
    for share, pair in uncertainty.coverage.items():
        percent = _in_percent(pair)
        change = _change(percent)
        key, label = f"coverage_{share * 100:.0f}", f"coverage of sigma's {share:.0%} interval"
        note = few if uncertainty.coordinates < limits.min_coordinates else _known(change, "sigmas")
        worse = None if change is None else abs(change)
        yield Finding(key, group, label, "% of coordinates", *percent, change, worse, limits.coverage, note)


def _scores(scores: Scores, limits: Limits) -> Iterator[Finding]:
    group, count = "Scores of the same people", len(scores.candidate)
    note = f"{count} scores, fewer than {limits.min_scores}" if count < limits.min_scores else ""
    apart, shift = scores.distance, scores.shift
    label = "score distributions apart"
    yield Finding("score_distance", group, label, "distance", None, None, apart, apart, limits.score_distance, note)
    medians = Pair(*(float(np.median(side)) if count else None for side in (scores.candidate, scores.reference)))
    worse = None if shift is None else abs(shift)
    yield Finding("score_shift", group, "median score shift", "score", *medians, shift, worse, limits.score_shift, note)


def _divergence(divergence: Divergence | None, limits: Limits, missing: str) -> Iterator[Finding]:
    group, note = "Mixtures, cell by cell", missing if divergence is None else ""
    apart, limit = None if divergence is None else float(divergence.components.mean()), limits.component_kl
    label = "components apart"
    yield Finding("component_kl", group, label, "nats per keypoint", None, None, apart, apart, limit, note)
    apart, limit = None if divergence is None else float(divergence.weights.mean()), limits.weight_kl
    yield Finding("weight_kl", group, "weights apart", "nats per image", None, None, apart, apart, limit, note)


def _change(pair: Pair) -> float | None:
    return None if pair.candidate is None or pair.reference is None else pair.candidate - pair.reference


def _known(change: float | None, what: str) -> str:
    return f"one side has no {what}" if change is None else ""


def _in_percent(pair: Pair) -> Pair:
    return Pair(*(None if value is None else 100.0 * value for value in pair))


def _excess(finding: Finding) -> str:
    if finding.unit == "settings":
        return finding.label
    if finding.unit == "images":
        return f"{finding.candidate:g} {finding.label}"
    return f"{finding.label} by {finding.change:+.3g} (limit {finding.limit:g} {finding.unit})"


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
