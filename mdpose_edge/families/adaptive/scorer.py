"""The scoring net: from the shape of a pose and the heat of its keypoints to the OKS that it is likely to have.

Three layers, 74-256-256-1 for COCO's keypoints, in numpy: two small products for all people of an image. It is trained
once the network is (`fit.py`), and travels as a side file: see `common.side_files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.errors import BundleError, SpecError
from mdpose_edge.spec import COCO_KEYPOINTS, KeypointSpec

SCORER = "scorer"
"""The name of the side file."""
HIDDEN = 256
"""Width of the two hidden layers."""
SMALLEST_TORSO = 1.0
"""px. Of what lengths are divided by."""
LAYERS = ("l1", "l2", "l3")
PUBLISHED_LINKS = (
    (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (5, 11), (6, 8), (6, 12), (7, 9), (8, 10),
    (11, 12), (11, 13), (12, 14), (13, 15), (14, 16),
)  # fmt: skip
"""Of COCO's keypoints, in the order of the authors' code, which its weights are for."""


@dataclass(frozen=True)
class ScorerLayout:
    """What the net reads of a pose: first[i] - second[i] of each link, its length, then each keypoint's heat."""

    links: tuple[tuple[int, int], ...]
    """Pairs of keypoints."""
    torso: tuple[int, ...]
    """Which links' mean length all lengths are divided by."""

    def check(self, num_keypoints: int) -> None:
        """Refuse links that are not of a pose's keypoints.

        Raises:
            SpecError: one is not.
        """
        if not self.links or not all(0 <= end < num_keypoints for link in self.links for end in link):
            expected = f"pairs of numbers below {num_keypoints}"
            raise SpecError("constants.scorer.links", expected=expected, got=str(self.links), do="export again")
        if not self.torso or not all(0 <= index < len(self.links) for index in self.torso):
            expected = f"numbers below {len(self.links)}"
            raise SpecError("constants.scorer.torso", expected=expected, got=str(self.torso), do="export again")


def layout_of(keypoints: KeypointSpec) -> ScorerLayout:
    """Return the layout for a set of keypoints: the authors' links for COCO's, else the skeleton's.

    Lengths are divided by the torso's: of the links between a shoulder and a hip, or of all where there is none. The
    authors' code for CrowdPose takes two links of the legs, by the positions that the torso has in COCO's list.
    """
    names = keypoints.names
    links = PUBLISHED_LINKS if names == COCO_KEYPOINTS.names else keypoints.skeleton
    links = links or tuple((index, index + 1) for index in range(len(names) - 1)) or ((0, 0),)
    ends = [{names[end].rpartition("_")[2] for end in link} for link in links]
    torso = tuple(index for index, both in enumerate(ends) if both == {"shoulder", "hip"})
    return ScorerLayout(links, torso or tuple(range(len(links))))


def num_features(layout: ScorerLayout, num_keypoints: int) -> int:
    """Return how many numbers the net reads."""
    return 3 * len(layout.links) + num_keypoints


def features_of(
    layout: ScorerLayout, keypoints_xy: NDArray[np.floating], heat: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return what the net reads of N poses, (N, features).

    Args:
        layout: what that is.
        keypoints_xy: (N, K, 2), px of the network input.
        heat: (N, K), the values of the heat maps there.
    """
    first, second = (np.array(ends, np.intp) for ends in zip(*layout.links, strict=True))
    vectors = keypoints_xy[:, first].astype(np.float64) - keypoints_xy[:, second]
    lengths = np.sqrt(np.square(vectors).sum(axis=2))
    torso = np.maximum(lengths[:, list(layout.torso)].mean(axis=1), SMALLEST_TORSO)[:, None]
    parts = [vectors.reshape(len(vectors), -1) / torso, lengths / torso, heat]
    return np.concatenate(parts, axis=1).astype(np.float32)


class Scorer:
    """The net, ready to run.

    Args:
        layout: what it reads.
        tensors: weights (out, in) and biases of the three layers, by "l1.weight" and so on.
        num_keypoints: of a pose.

    Raises:
        BundleError: a tensor is missing or of another shape.
    """

    def __init__(self, layout: ScorerLayout, tensors: Mapping[str, NDArray[np.float32]], num_keypoints: int) -> None:
        self._layout = layout
        self._layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        width = num_features(layout, num_keypoints)
        for name in LAYERS:
            weight, bias = (self._tensor(tensors, f"{name}.{part}") for part in ("weight", "bias"))
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                got = f"{weight.shape} and {bias.shape}"
                _refuse(f"{name} of {width} inputs", got)
            width = weight.shape[0]
            self._layers.append((np.ascontiguousarray(weight.T), bias))
        if width != 1:
            _refuse("one output", str(width))

    def __call__(self, keypoints_xy: NDArray[np.floating], heat: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the predicted OKS of N poses, (N,), as it comes out of the net; see `features_of`."""
        x = features_of(self._layout, keypoints_xy, heat)
        for weight, bias in self._layers[:-1]:
            x = np.maximum(x @ weight + bias, 0.0)
        weight, bias = self._layers[-1]
        predicted: NDArray[np.float32] = (x @ weight + bias)[:, 0]
        return predicted

    @staticmethod
    def _tensor(tensors: Mapping[str, NDArray[np.float32]], name: str) -> NDArray[np.float32]:
        if name not in tensors:
            _refuse(f"the tensor {name}", ", ".join(tensors) or "none")
        tensor = tensors[name].astype(np.float32)
        if not np.isfinite(tensor).all():
            _refuse(f"finite numbers in {name}", "NaN or infinity")
        return tensor


def scorer_of(layout: ScorerLayout | None, side: SideFiles | None, num_keypoints: int) -> Scorer | None:
    """Return the scoring net of a model, or None where it has none.

    Raises:
        BundleError: the model has one, and its side file is missing or another's.
    """
    if layout is None:
        return None
    if side is None or SCORER not in side:
        _refuse("the side file of the scoring net", "none" if not side else ", ".join(side))
    return Scorer(layout, side[SCORER], num_keypoints)


def _refuse(expected: str, got: str) -> NoReturn:
    raise BundleError(SCORER, expected=expected, got=got, do="export the model again")
