"""recipe.json: what the device must do with a bundle, so that it guesses nothing.

Written by the export on any machine, listed with its hash in the spec, read strictly on the device.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle
from mdpose_edge.common.arrays import ARRAY_ERRORS
from mdpose_edge.common.document import DocumentFormat, document_json
from mdpose_edge.errors import BundleError, EngineError
from mdpose_edge.spec import ModelSpec
from mdpose_edge.trt.platforms import DEVICES, Typing, Version, parse_version

RECIPE_FILE = "recipe.json"
GOLDEN_FILE = "golden.npz"
CALIBRATION_FILE = "calibration.cache"
TARGETS = ("tensorrt", "jetson")
"""Values of `ModelSpec.target` whose bundles have a recipe."""
RECIPE_VERSION = 2
"""Raised when a reader of the previous version would refuse or misread the next."""

_EXPORT_AGAIN = "export it again with --target tensorrt or jetson"


@dataclass(frozen=True)
class TensorRtRange:
    """The versions that build this graph as it was meant."""

    at_least: str
    below: str

    def __contains__(self, version: Version) -> bool:
        return parse_version(self.at_least) <= version < parse_version(self.below)

    def __str__(self) -> str:
        return f"at least {self.at_least} and below {self.below}"


@dataclass(frozen=True)
class JetsonRecipe:
    """The Jetson that a bundle is for; see targets.py."""

    jetpack: str
    device: str
    compute_capability: tuple[int, int]
    nvdla_core: int | None


@dataclass(frozen=True)
class FallbackLimits:
    """How much of an engine may differ from what was asked before the build fails: shares of the convolutions."""

    other_precision: float
    """In a wider type than was asked for."""
    off_nvdla: float
    """On the GPU although NVDLA was asked for."""


@dataclass(frozen=True)
class SelfTest:
    """How far the engine's head tensors may be from the recorded ones."""

    largest_error: float
    """Of any value, relative to the tensor's largest."""
    mean_error: float
    """On average, relative to the tensor's mean magnitude."""


@dataclass(frozen=True)
class Recipe:
    """All that a build needs to know beside the graph."""

    recipe_version: int
    tensorrt: TensorRtRange
    typing: Typing
    """Whether TensorRT chooses a layer's arithmetic within the flags, or the graph states it."""
    precision: Literal["fp32", "fp16", "int8"]
    flags: tuple[str, ...]
    """Names of BuilderFlag to set; none of precision where typing is strong."""
    cleared_flags: tuple[str, ...]
    """Names of BuilderFlag to clear."""
    workspace_mib: int
    timing_cache: str
    """Name in the engine cache; {tensorrt} and {gpu} are filled in on the device."""
    jetson: JetsonRecipe | None
    calibration: str | None
    """The file with INT8 scales for NVDLA, whose graph has no Q/DQ."""
    convolutions: Mapping[str, str]
    """Precision asked for each convolution, by the name of its ONNX node."""
    limits: FallbackLimits
    self_test: SelfTest

    @property
    def nvdla_core(self) -> int | None:
        """The core to build for, or None for the GPU."""
        return None if self.jetson is None else self.jetson.nvdla_core

    def to_json(self) -> str:
        """Return the recipe as JSON."""
        return document_json(self)


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Write a recipe of version 1 without what no build reads: the opset, which the spec has, and the preprocessing."""
    return {key: value for key, value in data.items() if key not in ("opset", "preprocessing")}


_FORMAT = DocumentFormat(
    Recipe,
    version_key="recipe_version",
    version=RECIPE_VERSION,
    error=BundleError,
    if_damaged=_EXPORT_AGAIN,
    if_other_version="export again with this version",
    upgrades={1: _from_version_1},
)


def read_recipe(bundle: Bundle) -> Recipe:
    """Read the recipe of a bundle, whose hashes `open_bundle` has checked.

    Raises:
        BundleError: the bundle is for another target, or its recipe is missing, malformed or of another version.
    """
    where = str(bundle.path)
    if bundle.spec.target not in TARGETS:
        expected = f"a bundle for {' or '.join(TARGETS)}"
        raise BundleError(where, expected=expected, got=f"one for {bundle.spec.target}", do=_EXPORT_AGAIN)
    if RECIPE_FILE not in bundle.spec.files:
        raise BundleError(where, expected=f"a {RECIPE_FILE}", got="none", do=_EXPORT_AGAIN)
    path = bundle.path / RECIPE_FILE
    recipe = _FORMAT.read(path)
    if recipe.jetson is not None and recipe.jetson.device not in DEVICES:
        expected, do = f"one of {', '.join(DEVICES)} at jetson.device", "update mdpose-edge to a version that knows it"
        raise BundleError(str(path), expected=expected, got=recipe.jetson.device, do=do)
    return recipe


def recipe_for_core(bundle: Bundle, recipe: Recipe, core: int | None) -> Recipe:
    """Return a bundle's recipe for another NVDLA core of the same device, or as it is for None.

    Raises:
        EngineError: the bundle is for the GPU, or no module of the device has such a core.
    """
    if core is None:
        return recipe
    if recipe.jetson is None or recipe.nvdla_core is None:
        expected, do = "a bundle for NVDLA", "export it again with --nvdla, or leave --nvdla-core out"
        raise EngineError(str(bundle.path), expected=expected, got="one for the GPU", do=do)
    device = DEVICES[recipe.jetson.device]
    cores = range(device.nvdla_cores)
    if core not in cores:
        expected = f"core {' or '.join(map(str, cores))} of {device.name}"
        raise EngineError("--nvdla-core", expected=expected, got=str(core), do="choose another, or leave it out")
    return dataclasses.replace(recipe, jetson=dataclasses.replace(recipe.jetson, nvdla_core=core))


@dataclass(frozen=True)
class Golden:
    """Images, and the head tensors that the build machine got for them."""

    images: NDArray[np.uint8]
    """(n, H, W, 3)."""
    heads: Mapping[str, NDArray[np.float32]]
    """By output name, (n, ...)."""


def read_golden(bundle: Bundle) -> Golden:
    """Read the recorded images and head tensors.

    Raises:
        BundleError: they are missing or do not fit the spec.
    """
    path, spec = bundle.path / GOLDEN_FILE, bundle.spec
    if GOLDEN_FILE not in spec.files:
        raise BundleError(str(bundle.path), expected=f"a {GOLDEN_FILE}", got="none", do=_EXPORT_AGAIN)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = Golden(arrays["images"], {name: arrays[f"heads/{name}"] for name in spec.outputs})
    except (*ARRAY_ERRORS, KeyError, zipfile.BadZipFile) as error:
        expected = f"images and {len(spec.outputs)} head tensors"
        raise BundleError(str(path), expected=expected, got=str(error), do=_EXPORT_AGAIN) from error
    shape = golden.images.shape[1:]
    if golden.images.dtype != np.uint8 or shape != (spec.input.height, spec.input.width, 3) or not len(golden.images):
        expected = f"uint8 images of {spec.input.width} x {spec.input.height}"
        got = f"{golden.images.dtype} {golden.images.shape}"
        raise BundleError(str(path), expected=expected, got=got, do=_EXPORT_AGAIN)
    return golden


def recipe_summary(recipe: Recipe, spec: ModelSpec) -> dict[str, object]:
    """Return what a reader of a report wants to know of a recipe."""
    return {
        "target": spec.target,
        "precision": recipe.precision,
        "typing": recipe.typing,
        "tensorrt": str(recipe.tensorrt),
        "jetpack": None if recipe.jetson is None else recipe.jetson.jetpack,
        "nvdla_core": recipe.nvdla_core,
        "workspace_mib": recipe.workspace_mib,
    }
