"""Do both artifacts prepare and read a frame alike? Images need not show it: letterbox and stretch are the same on
square frames."""

from __future__ import annotations

from mdpose_edge.families.measure import Finding, Measured, ObservedImage
from mdpose_edge.spec import ModelSpec

KEY = "settings"
GROUP, UNIT = "Settings", "settings"


class SettingsMeasure:
    """The settings that differ; none may.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        self._apart = None if reference is None else settings_apart(candidate, reference)

    def add(self, image: ObservedImage) -> None:
        """Do nothing: settings are not in the images."""

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        return Measured((judge_settings(self._apart),))


def judge_settings(apart: tuple[str, ...] | None) -> Finding:
    """Judge the settings that differ; None where a side has none."""
    if apart is None:
        note = "one side has no settings"
        return Finding(KEY, GROUP, "settings that differ", UNIT, None, None, None, None, 0.0, note)
    count = float(len(apart))
    label = f"settings that differ: {', '.join(apart) or 'none'}"
    return Finding(KEY, GROUP, label, UNIT, None, None, count, count, 0.0)


def settings_apart(candidate: ModelSpec, reference: ModelSpec) -> tuple[str, ...]:
    """List the settings of preprocessing and decoding that differ between two artifacts; the input's size is none."""
    keys = ("layout", "dtype", "color", "mean", "std", "resize")
    settings = {f"input.{key}": (getattr(candidate.input, key), getattr(reference.input, key)) for key in keys}
    for name in ("family", "constants", "classes", "keypoints"):
        settings[name] = (getattr(candidate, name), getattr(reference, name))
    return tuple(name for name, (ours, theirs) in settings.items() if ours != theirs)
