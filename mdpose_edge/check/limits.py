"""What the gate holds the figures of any model against; the limits of a family's own measures are with the family.

Where they come from is measured in docs/gate.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mdpose_edge.check.measures.accuracy import AccuracyLimits
from mdpose_edge.check.measures.boxes import BoxLimits
from mdpose_edge.check.measures.calibration import CalibrationLimits
from mdpose_edge.check.measures.coverage import CoverageLimits
from mdpose_edge.check.measures.outputs import OutputLimits
from mdpose_edge.check.measures.scores import ScoreLimits
from mdpose_edge.check.measures.shift import ShiftLimits


@dataclass(frozen=True)
class Limits:
    """How far a candidate may fall behind its reference, by measure."""

    accuracy: AccuracyLimits = field(default_factory=AccuracyLimits)
    calibration: CalibrationLimits = field(default_factory=CalibrationLimits)
    coverage: CoverageLimits = field(default_factory=CoverageLimits)
    scores: ScoreLimits = field(default_factory=ScoreLimits)
    shift: ShiftLimits = field(default_factory=ShiftLimits)
    boxes: BoxLimits = field(default_factory=BoxLimits)
    outputs: OutputLimits = field(default_factory=OutputLimits)
