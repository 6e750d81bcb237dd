"""ModelSpec: the contract that travels with every artifact.

A spec is frozen, plain JSON, and versioned. Reading is strict: a key that is unknown or missing is an error, so that an
artifact never runs under assumptions it did not state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mdpose_edge.common.document import DocumentFormat, document_json
from mdpose_edge.errors import SpecError

SPEC_VERSION = 3
"""Raised when a reader of the previous version would misread the next."""
Precision = Literal["fp32", "fp16", "int8"]
"""Arithmetic of an artifact's graph."""


@dataclass(frozen=True)
class InputSpec:
    """What the graph takes: uint8 images as a camera gives them."""

    height: int
    width: int
    batch: int = 1
    name: str = "image"
    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    color: Literal["BGR"] = "BGR"
    mean: tuple[float, float, float] = (103.53, 116.28, 123.675)
    """Subtracted inside the graph, in `color` order and units of the uint8 pixel (ImageNet)."""
    std: tuple[float, float, float] = (57.375, 57.12, 58.395)
    """Divided by inside the graph, likewise."""
    resize: Literal["stretch", "letterbox"] = "stretch"
    """How a frame becomes (height, width): see preprocess.py."""

    def __post_init__(self) -> None:
        _positive("input.height", self.height)
        _positive("input.width", self.width)
        _positive("input.batch", self.batch)


@dataclass(frozen=True)
class HeadSpec:
    """A head tensor: a raw output of the graph, float32 (batch, channels, rows, columns)."""

    name: str
    channels: int
    stride: int | None
    """Input pixels per cell; None for a tensor of one cell, which speaks of the whole image."""

    def __post_init__(self) -> None:
        _positive(f"channels of {self.name}", self.channels)
        if self.stride is not None:
            _positive(f"stride of {self.name}", self.stride)


@dataclass(frozen=True)
class KeypointSpec:
    """The keypoints of a pose, in channel order; none where a model finds boxes alone."""

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    """(left, right) indices that trade places in a mirror."""
    skeleton: tuple[tuple[int, int], ...]
    """Pairs of indices joined by a limb."""
    sigmas: tuple[float, ...]
    """Per-keypoint constants of the object keypoint similarity (OKS)."""

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(self.sigmas) != count:
            raise SpecError(
                "keypoints.sigmas", expected=f"{count} values", got=str(len(self.sigmas)), do="give one per keypoint"
            )
        for key in ("flip_pairs", "skeleton"):
            for pair in getattr(self, key):
                if not all(0 <= index < count for index in pair):
                    raise SpecError(
                        f"keypoints.{key}", expected=f"indices below {count}", got=str(pair), do="correct the pair"
                    )


@dataclass(frozen=True)
class DecodeSpec:
    """How head tensors become poses."""

    score_threshold: float = 0.3
    """A component with a score at or below this is no candidate."""
    nms: Literal["box", "oks", "merge"] = "box"
    """What overlap means: IoU of the boxes around the keypoints, or OKS; "merge" is OKS, with what overlaps merged."""
    nms_threshold: float = 0.7
    """A candidate overlapping a better one by more than this is dropped, or becomes a part of it."""
    pre_nms: int = 1000
    """At most so many candidates, best first, enter NMS."""
    max_poses: int = 100
    """NMS stops once so many are kept."""

    def __post_init__(self) -> None:
        for key in ("score_threshold", "nms_threshold"):
            value = getattr(self, key)
            if not 0.0 <= value <= 1.0:
                raise SpecError(f"decode.{key}", expected="a number in [0, 1]", got=str(value), do="change it")
        _positive("decode.pre_nms", self.pre_nms)
        _positive("decode.max_poses", self.max_poses)


@dataclass(frozen=True)
class Provenance:
    """Where an artifact came from, and what was measured on it."""

    toolkit_version: str
    checkpoint_sha256: str | None = None
    calibration_digest: str | None = None
    accuracy: Mapping[str, Any] | None = None
    """Figures and the data they were measured on, or None where nothing was measured."""
    imported: Mapping[str, Any] | None = None
    """Where another code trained the weights: its name, the file, its sha256, and notes on what is not as it was."""


@dataclass(frozen=True)
class ModelSpec:
    """All that a program needs to know of an artifact, beside its bytes.

        spec = ModelSpec.from_json(Path("bundle/spec.json").read_text())
        print(spec.input.width, spec.input.height, spec.keypoints.names)

    Raises:
        SpecError: a value is out of range, or the input is no multiple of a head tensor's stride.
    """

    family: str
    """Which decoder reads the head tensors: a name in families/registry.py."""
    network: Mapping[str, Any]
    """The network's own options (backbone, widths), read by the family's training code alone."""
    input: InputSpec
    heads: tuple[HeadSpec, ...]
    """The head tensors, in the order of the graph's outputs."""
    constants: Mapping[str, Any]
    """What else the family's decoder has to know; the family alone reads it, strictly."""
    keypoints: KeypointSpec
    provenance: Provenance
    decode: DecodeSpec = field(default_factory=DecodeSpec)
    classes: tuple[str, ...] = ("person",)
    """What is found, in the order of `Poses.classes`."""
    dimensions: Literal[2, 3] = 2
    """Of a keypoint: 3 where the model gives `Poses.keypoints_3d` too."""
    target: str = "torch"
    """What the graph is for: "torch" (a checkpoint), "onnx", "openvino", "tensorrt", "jetson"."""
    precision: Precision = "fp32"
    quantization: Mapping[str, Any] | None = None
    opset: int | None = None
    graph: str | None = None
    """The file in `files` that an engine opens; None for a checkpoint."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file beside the spec, by name."""
    spec_version: int = SPEC_VERSION

    def __post_init__(self) -> None:
        if not self.heads:
            raise SpecError("heads", expected="at least one head tensor", got="none", do="name the graph's outputs")
        if not self.classes:
            raise SpecError("classes", expected="at least one class", got="none", do="name what the model finds")
        for head in self.heads:
            for axis in ("height", "width"):
                size = getattr(self.input, axis)
                if head.stride is not None and size % head.stride:
                    raise SpecError(
                        f"input.{axis}",
                        expected=f"a multiple of the stride {head.stride} of {head.name}",
                        got=str(size),
                        do=f"use {round(size / head.stride) * head.stride or head.stride}",
                    )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the head tensors, in the order of the graph's outputs."""
        return tuple(head.name for head in self.heads)

    def cells(self, stride: int | None) -> tuple[int, int]:
        """Return (rows, columns) of a tensor of this stride."""
        return (1, 1) if stride is None else (self.input.height // stride, self.input.width // stride)

    def head_shape(self, head: HeadSpec) -> tuple[int, int, int]:
        """Return (channels, rows, columns) of a head tensor, the batch aside."""
        return head.channels, *self.cells(head.stride)

    def to_json(self) -> str:
        """Write the spec as JSON, keys in the order of the fields."""
        return document_json(self)

    @classmethod
    def from_json(cls, text: str, where: str = "spec") -> ModelSpec:
        """Read a spec strictly.

        Args:
            text: what `to_json` wrote.
            where: the file it came from, for messages.

        Raises:
            SpecError: not JSON, a version that this one does not read, an unknown or missing key, or a value of the
                wrong kind.
        """
        return _FORMAT.parse(text, where)


def _from_version_2(data: Mapping[str, Any]) -> dict[str, Any]:
    """Write a spec of version 2, which knew no weights of other codes, in the words of this version."""
    return {**data, "provenance": {**data["provenance"], "imported": None}}


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Write a spec of version 1, which knew MDPose alone, in the words of this version."""
    new = dict(data)
    levels, names, extent = new.pop("levels"), new.pop("outputs"), new.pop("coordinate_extent")
    coordinates = 2 * len(data["keypoints"]["names"])
    strides = {level["name"]: level["stride"] for level in levels}
    heads = [
        {"name": name, "channels": 1 if kind == "o" else coordinates, "stride": strides[level]}
        for name in names
        for kind, _, level in [name.partition("_")]
    ]
    new |= {"heads": heads, "constants": {"levels": levels, "coordinate_extent": extent}}
    return _from_version_2(new | {"classes": ["person"], "dimensions": 2})


_FORMAT = DocumentFormat(
    ModelSpec,
    version_key="spec_version",
    version=SPEC_VERSION,
    error=SpecError,
    if_damaged="export again",
    if_other_version="export again with this version",
    upgrades={1: _from_version_1, 2: _from_version_2},
)

COCO_KEYPOINTS = KeypointSpec(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
)  # fmt: skip
"""COCO's 17 keypoints; skeleton as in COCO's category record (zero-based), sigmas as in its evaluation code."""
NO_KEYPOINTS = KeypointSpec((), (), (), ())
"""Of a model that finds boxes alone."""


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise SpecError(key, expected="a whole number of at least 1", got=str(value), do="change it")
