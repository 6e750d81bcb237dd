"""What the gate measures of boxes: how likely the sizes of annotated boxes are, and how far the mixtures are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.families.alternatives import Alternatives
from mdpose_edge.families.base import Heads
from mdpose_edge.families.measure import Finding, Measured, Observation, ObservedImage, Pair, Truth, same_cells
from mdpose_edge.families.mixture import mixture_divergence
from mdpose_edge.families.mixture_dense.boxes import BoxDecoder
from mdpose_edge.families.mixture_measures import GROUP, LIMITS, NO_MIXTURE, judge_divergence
from mdpose_edge.families.registry import evaluation_options
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.spec import ModelSpec

SAME_IOU = 0.5
"""From here on a box is the annotated one: the loosest threshold of COCO's AP."""


class BoxDensityMeasure:
    """The likelihood of the sizes of annotated boxes that both sides find, and the divergence at the reference's peaks.

    Args:
        candidate: its spec.
        reference: its spec, or None where only its results are known.
    """

    def __init__(self, candidate: ModelSpec, reference: ModelSpec | None) -> None:
        self._decoders = None if reference is None else (_decoder(candidate), _decoder(reference))
        self._note = NO_MIXTURE if reference is None else ""
        if reference is not None and not same_cells(candidate, reference):
            self._note = "different cells"
        self._divergence: list[tuple[float, float]] = []
        self._nll: list[NDArray[np.float64]] = []

    def add(self, image: ObservedImage) -> None:
        """Count one image: see `Measure`."""
        if self._decoders is None:
            return
        sides = tuple(zip(self._decoders, (image.candidate, image.reference), strict=True))
        if not self._note:
            like = image.reference.heads
            candidate, reference = (decoder.mixture(*_tensors(seen), like=like) for decoder, seen in sides)
            self._divergence.append(mixture_divergence(candidate, reference))
        if image.truth is not None:
            said = [decoder.alternatives(*_tensors(seen)) for decoder, seen in sides]
            nll = np.stack([size_nll(one, image.truth) for one in said], axis=1)
            self._nll.append(nll[np.isfinite(nll).all(axis=1)])

    def result(self) -> Measured:
        """Return what was found: see `Measure`."""
        labelled = (judge_sizes(np.concatenate(self._nll), LIMITS.nll),) if self._nll else ()
        per_image = np.array([components for _, components in self._divergence]) if self._divergence else None
        return Measured((*labelled, *judge_divergence(self._divergence, self._note, LIMITS)), per_image=per_image)


def judge_sizes(nll: NDArray[np.float64], limit: float) -> Finding:
    """Judge the likelihood of sizes.

    Args:
        nll: (boxes, 2) nats, by candidate and reference, of annotated boxes that both find.
        limit: on the rise of the mean.
    """
    pair = Pair(*(map(float, nll.mean(axis=0)) if len(nll) else (None, None)))
    note = "" if len(nll) else "no annotated box that both sides find"
    label = "NLL of the annotated sizes"
    return Finding("nll", GROUP, label, "nats per box", *pair, pair.change, pair.change, limit, note)


def size_nll(said: Alternatives, truth: Truth) -> NDArray[np.float64]:
    """Return the negative log-likelihood of (width, height) of each annotated box, in the cell that found it.

    A box is found by the best-scored prediction of its class that overlaps it by an IoU of 0.5; NaN where none does.

    Args:
        said: by one side, best score first.
        truth: of the image.

    Returns:
        (N,) nats, of lengths in px.
    """
    assert truth.boxes_xyxy is not None and truth.classes is not None
    nll = np.full(len(truth.boxes_xyxy), np.nan)
    corners = np.stack([poses.boxes_xyxy for poses in said.poses], axis=1).astype(np.float64)
    boxes, classes = corners[np.arange(len(corners)), said.spoke], said.poses[0].classes
    for number, (box, kind) in enumerate(zip(truth.boxes_xyxy.astype(np.float64), truth.classes, strict=True)):
        fits = np.flatnonzero((classes is None or classes == kind) & (_iou(boxes, box) >= SAME_IOU))
        if len(fits):
            nll[number] = _mixture_nll(said, corners, int(fits[0]), box[2:] - box[:2])
    return nll


def _mixture_nll(said: Alternatives, corners: NDArray[np.float64], row: int, size: NDArray[np.float64]) -> float:
    assert said.sigma_wh is not None
    sigma = said.sigma_wh[row].astype(np.float64)
    distance = (size - (corners[row, :, 2:] - corners[row, :, :2])) / sigma
    density = -0.5 * np.square(distance) - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    with np.errstate(divide="ignore"):  # a weight may round to 0
        joint = np.log(said.weights[row].astype(np.float64)) + density.sum(axis=1)
    return -float(joint.max() + np.log(np.exp(joint - joint.max()).sum()))


def _iou(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = np.maximum(sides, 0.0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return iou


def _decoder(spec: ModelSpec) -> BoxDecoder:
    return BoxDecoder(spec, evaluation_options(spec.family, boxes=True))


def _tensors(seen: Observation) -> tuple[Heads, FrameGeometry]:
    assert seen.heads is not None and seen.geometry is not None
    return seen.heads, seen.geometry
