"""Everything that can go wrong, by name.

MdposeError                 any of the below; the command line prints it in one sentence and exits with 2
├── MissingPackageError     an optional package is absent
├── ConfigError             a training configuration, option or key is wrong
├── SpecError               a ModelSpec is malformed, incomplete or of another version
├── BundleError             a bundle is incomplete, altered, or cannot be written
├── CheckpointError         a checkpoint cannot be read or does not fit the network
├── InputError              a frame, image or source cannot be used
├── OutputError             a result cannot be written
├── DataError               a dataset or annotation file cannot be used
├── CalibrationError        a calibration set cannot be made, is altered, or does not fit the model
├── TrainingError           training cannot start or go on
├── ExportError             a graph cannot be made, or differs from the network
├── GateError               an artifact fell short of its reference; the command line exits with 1
└── EngineError             an inference engine cannot load or run a graph
"""

from __future__ import annotations

from functools import partial
from typing import Any


class MdposeError(Exception):
    """Base of every error this package raises on purpose.

        try:
            estimator = PoseEstimator("bundle/")
        except MdposeError as error:
            print(error.expected, "|", error.got, "|", error.do)

    Args:
        where: the file, key or option at fault, or "".
        expected: what would have been right.
        got: what was found.
        do: what the reader can do about it, as an imperative.
    """

    def __init__(self, where: str = "", *, expected: str, got: str, do: str) -> None:
        self.where, self.expected, self.got, self.do = where, expected, got, do
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}expected {expected}, got {got}; {do}.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the arguments rather than the message, so that an error of a worker process arrives whole."""
        return partial(type(self), self.where, expected=self.expected, got=self.got, do=self.do), ()


class MissingPackageError(MdposeError):
    """An optional package is absent; the message names the extra that brings it."""


class ConfigError(MdposeError):
    """A training configuration, option or key is wrong."""


class SpecError(MdposeError):
    """A ModelSpec is malformed, incomplete or of another version."""


class BundleError(MdposeError):
    """A bundle is incomplete, altered, or cannot be written."""


class CheckpointError(MdposeError):
    """A checkpoint cannot be read or does not fit the network."""


class InputError(MdposeError):
    """A frame, image or source cannot be used."""


class OutputError(MdposeError):
    """A result cannot be written."""


class DataError(MdposeError):
    """A dataset or annotation file cannot be used."""


class CalibrationError(MdposeError):
    """A calibration set cannot be made, is altered, or does not fit the model."""


class TrainingError(MdposeError):
    """Training cannot start or go on."""


class ExportError(MdposeError):
    """A graph cannot be made, or differs from the network it came from."""


class GateError(MdposeError):
    """An artifact fell short of its reference, and so does not appear."""


class EngineError(MdposeError):
    """An inference engine cannot load or run a graph."""
