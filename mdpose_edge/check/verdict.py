"""Figures become a verdict: each change beside its limit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mdpose_edge.check.measure import Measurement
from mdpose_edge.check.measures import settings
from mdpose_edge.errors import DataError
from mdpose_edge.families.measure import Finding

FEW_IMAGES = 100
"""Below so many, accuracy and scores may scatter by more than their limits: docs/gate.md has figures."""


@dataclass(frozen=True)
class Verdict:
    """All findings, and whether every one that is judged held."""

    findings: tuple[Finding, ...]
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
        """Return it in one sentence."""
        judged = sum(finding.held is not None for finding in self.findings)
        if self.held:
            figures = "1 figure is within its limit" if judged == 1 else f"{judged} figures are within their limits"
            return f"held: {figures}"
        worst = ", ".join(_excess(finding) for finding in self.fallen[:3])
        more = f" and {len(self.fallen) - 3} more" if len(self.fallen) > 3 else ""
        return f"fell short in {len(self.fallen)} of {judged} figures: {worst}{more}"

    def to_json_dict(self) -> dict[str, Any]:
        """Return it ready for json.dump; an infinite change becomes null, as JSON has none."""
        findings = [{**_finite(asdict(finding)), "held": finding.held} for finding in self.findings]
        return {"held": self.held, "sentence": self.sentence(), "caution": self.caution, "findings": findings}


def judge(measurement: Measurement) -> Verdict:
    """Hold every figure against its limit.

    Raises:
        DataError: there is none that can be judged; that settings agree says nothing of what was run.
    """
    findings = measurement.findings
    if all(finding.held is None or (finding.held and finding.key == settings.KEY) for finding in findings):
        notes = sorted({finding.note for finding in findings if finding.note})
        do = "check on more images, or ones with people that the reference finds"
        raise DataError("the check", expected="a figure to judge by", got=f"none ({'; '.join(notes)})", do=do)
    return Verdict(findings, _caution(len(measurement.images)))


def _caution(images: int) -> str:
    if images >= FEW_IMAGES:
        return ""
    count = "1 image" if images == 1 else f"{images} images"
    return f"figures of only {count} scatter: judge on {FEW_IMAGES} and more"


def _excess(finding: Finding) -> str:
    if finding.unit == "settings":
        return finding.label
    if finding.unit == "images":
        return f"{finding.candidate:g} {finding.label}"
    return f"{finding.label} by {finding.change:+.3g} (limit {finding.limit:g} {finding.unit})"


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
