"""The trtexec command line for a recipe, for those who want their own build; it differs between versions.

It says all that `builder.build_plan` and `capabilities` tell the builder, so that both make the same engine. Options by
version: samples/common/sampleOptions.cpp of NVIDIA/TensorRT.
"""

from __future__ import annotations

import shlex

from mdpose_edge.bundle import Bundle
from mdpose_edge.trt.platforms import Version, parse_version, show
from mdpose_edge.trt.recipe import Recipe

SKIP_INFERENCE: Version = (8, 6)
"""Before, the option was --buildOnly; there were no auxiliary streams, and cuDNN and cuBLAS were in use by default."""
STRONGLY_TYPED_ALWAYS: Version = (11,)
"""From here on there is no other typing, no option for it, and no foreign kernels to be switched off."""
_OPTIONS = {"FP16": "--fp16", "INT8": "--int8", "GPU_FALLBACK": "--allowGPUFallback"}
_CLEARING_OPTIONS = {"TF32": "--noTF32"}


def trtexec_commands(bundle: Bundle, recipe: Recipe) -> list[tuple[str, str]]:
    """Return (versions, command) for each part of the recipe's range that has a command of its own.

    On a Jetson, trtexec is /usr/src/tensorrt/bin/trtexec; pip's packages have none.
    """
    first, end = parse_version(recipe.tensorrt.at_least), parse_version(recipe.tensorrt.below)
    starts = [first, *(version for version in (SKIP_INFERENCE, STRONGLY_TYPED_ALWAYS) if first < version < end)]
    ends = [*starts[1:], end]
    return [
        (f"TensorRT {show(start)} to below {show(stop)}", _command(bundle, recipe, start))
        for start, stop in zip(starts, ends, strict=True)
    ]


def _command(bundle: Bundle, recipe: Recipe, version: Version) -> str:
    words = ["trtexec", f"--onnx={bundle.graph}"]
    words += [_OPTIONS[flag] for flag in recipe.flags]
    words += [_CLEARING_OPTIONS[flag] for flag in recipe.cleared_flags]
    if recipe.typing == "strong" and version < STRONGLY_TYPED_ALWAYS:
        words.append("--stronglyTyped")
    if recipe.calibration is not None:
        words.append(f"--calib={bundle.path / recipe.calibration}")
    if recipe.nvdla_core is not None:
        words.append(f"--useDLACore={recipe.nvdla_core}")
    words.append(f"--memPoolSize=workspace:{recipe.workspace_mib}")
    words += _own_kernels_on_one_stream(version)
    words += ["--profilingVerbosity=detailed", f"--saveEngine={bundle.path.name}.plan"]
    words.append("--skipInference" if version >= SKIP_INFERENCE else "--buildOnly")
    return shlex.join(words)


def _own_kernels_on_one_stream(version: Version) -> list[str]:
    """Say what `capabilities.use_own_kernels` and `keep_to_one_stream` do."""
    sources = [] if version >= STRONGLY_TYPED_ALWAYS else ["--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN"]
    if version < SKIP_INFERENCE:
        return [*sources, "--preview=+disableExternalTacticSourcesForCore0805"]
    return [*sources, "--maxAuxStreams=0"]
