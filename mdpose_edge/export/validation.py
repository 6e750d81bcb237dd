"""What an export is told of validation data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdpose_edge.check.frames import frames_of
from mdpose_edge.check.verdict import Limits
from mdpose_edge.errors import ConfigError
from mdpose_edge.optional import require


@dataclass(frozen=True)
class Validation:
    """On what the gate runs within an export, and by which budget."""

    data: str | Path
    """A folder in COCO's layout, or of plain images, on which accuracy is not measured."""
    split: str = "val"
    limit: int | None = None
    """Only the first so many images."""
    max_drop: float | None = None
    """AP points that may be lost; given, it also turns accuracy control on for INT8. None: the gate's own limit."""
    report: Path | None = None
    """A folder for the gate's page, written whether it holds or not."""

    @property
    def limits(self) -> Limits:
        """What the gate holds figures against."""
        return Limits() if self.max_drop is None else Limits(max_drop=self.max_drop)

    @property
    def where(self) -> str:
        """Say what the images are, without a path of this machine."""
        return f"{Path(self.data).resolve().name}, {self.split}"

    def check(self) -> None:
        """Refuse, before minutes of work, what could not be measured on.

        Raises:
            MdposeError: the images cannot be used, or a budget of AP is asked for where there are no annotations.
        """
        if frames_of(self.data, self.split, self.limit).split is not None:
            require("faster_coco_eval", extra="eval", feature="a check on annotated images")
        elif self.max_drop is not None:
            expected, do = "annotated --val-data, in COCO's layout", "leave --max-drop out, or give such a folder"
            raise ConfigError("--max-drop", expected=expected, got=f"plain images in {self.data}", do=do)
