"""What an installed TensorRT can do, asked of its module rather than of its version number.

The one place that knows that versions differ: weak and strong typing, names that came or went between 8.5 and 11. Enum
values moved between versions too, so members are always named and never written as numbers.
"""

from __future__ import annotations

from typing import Any

from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import EngineError
from mdpose_edge.trt.platforms import OLDEST_TENSORRT, Typing, Version, parse_version, show

NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""By member of DataType: `trt.nptype` of 8.5 fails with numpy 1.24 and newer."""


def load_tensorrt() -> Any:
    """Import TensorRT.

    Raises:
        MissingPackageError: it is not installed for this Python.
        EngineError: one of its libraries cannot be loaded, or it is older than 8.5.
    """
    try:
        trt = require("tensorrt", extra="tensorrt", feature="the tensorrt engine")
    except ModuleNotFoundError:
        raise
    except ImportError as error:
        expected, do = "TensorRT's libraries", "install TensorRT of the version that its Python package is for"
        raise EngineError("tensorrt", expected=expected, got=str(error), do=do) from error
    version = tensorrt_version(trt)
    if version < OLDEST_TENSORRT:
        expected, do = f"TensorRT {show(OLDEST_TENSORRT)} or newer", "use JetPack 5.1 or newer"
        raise EngineError("tensorrt", expected=expected, got=show(version), do=do)
    return trt


def tensorrt_version(trt: Any) -> Version:
    """Return the version as numbers; a suffix like ".post1" is left out."""
    digits = [part for part in str(trt.__version__).split(".") if part.isdigit()]
    return parse_version(".".join(digits))


def can_type(trt: Any, typing: Typing) -> bool:
    """Say whether networks can be built with this typing."""
    if typing == "strong":
        return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not can_type(trt, "weak")
    return hasattr(trt.BuilderFlag, "FP16")


def network_flags(trt: Any, typing: Typing) -> int:
    """Return what `create_network` takes: an explicit batch where there is another, and the typing."""
    flags = trt.NetworkDefinitionCreationFlag
    names = ("EXPLICIT_BATCH", "STRONGLY_TYPED") if typing == "strong" else ("EXPLICIT_BATCH",)
    return sum(1 << int(getattr(flags, name)) for name in names if hasattr(flags, name))


def set_flags(trt: Any, config: Any, flags: tuple[str, ...], cleared: tuple[str, ...]) -> None:
    """Set and clear builder flags by name.

    Raises:
        EngineError: this TensorRT has no such flag; nothing is skipped.
    """
    for name in (*flags, *cleared):
        member = getattr(trt.BuilderFlag, name, None)
        if member is None:
            got = f"TensorRT {show(tensorrt_version(trt))}, which has none"
            do = "export the bundle for this TensorRT"
            raise EngineError("recipe", expected=f"a TensorRT with the flag {name}", got=got, do=do)
        if name in cleared:
            config.clear_flag(member)
        else:
            config.set_flag(member)


def use_own_kernels(trt: Any, config: Any) -> None:
    """Keep to TensorRT's own convolutions, so that an engine needs neither cuDNN nor cuBLAS.

    8.5 takes both by default where they are installed; from 8.6 on the preview feature is the default, from 10.0 gone.
    """
    sources = trt.TacticSource
    config.set_tactic_sources(1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS))
    feature = getattr(trt.PreviewFeature, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805", None)
    if feature is not None:
        config.set_preview_feature(feature, True)


def keep_to_one_stream(config: Any) -> None:
    """Forbid further streams where there can be some (8.6 and newer): one stream can be captured as a CUDA graph."""
    if hasattr(config, "max_aux_streams"):
        config.max_aux_streams = 0


def watch_progress(trt: Any, config: Any, progress: Progress) -> bool:
    """Have the builder report its progress, where this TensorRT can (9.1 and newer).

    Returns:
        Whether it will.
    """
    base = getattr(trt, "IProgressMonitor", None)
    if base is None:
        return False

    class Monitor(base):  # type: ignore[misc, valid-type]
        """Passes on the outermost phase alone; the inner ones run to hundreds."""

        def __init__(self) -> None:
            super().__init__()
            self.outer: tuple[str, int] | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self.outer is None:
                self.outer = (phase_name, num_steps)
                progress(0, num_steps, phase_name)

        def step_complete(self, phase_name: str, done: int) -> bool:
            if self.outer is not None and self.outer[0] == phase_name:
                progress(min(done + 1, self.outer[1]), self.outer[1], phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if self.outer is not None and self.outer[0] == phase_name:
                progress(self.outer[1], self.outer[1], phase_name)
                self.outer = None

    config.progress_monitor = Monitor()
    return True


def calibrator(trt: Any, cache: bytes) -> Any:
    """Make an INT8 calibrator that knows nothing but a cache: NVDLA takes scales in no other way.

    Raises:
        EngineError: this TensorRT has no calibrators (11 and newer).
    """
    base = getattr(trt, "IInt8EntropyCalibrator2", None)
    if base is None:
        got = show(tensorrt_version(trt))
        raise EngineError("recipe", expected="TensorRT below 11 for NVDLA's scales", got=got, do="leave out --nvdla")

    class CacheOnly(base):  # type: ignore[misc, valid-type]
        """Hands out the cache; asked for images, it has none, and the build fails rather than guesses."""

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, written: object) -> None:
            pass

    return CacheOnly()


def set_calibrator(config: Any, scales: Any) -> None:
    """Set the builder's calibrator; the caller keeps the object alive until the build is done."""
    config.int8_calibrator = scales
