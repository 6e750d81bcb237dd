"""What a model family gives, as protocols: nothing here is to inherit from.

The numpy half (`decode.py`, `measures.py`) is what a device reads; the torch half (`training.py` and what it imports)
trains and exports. registry.py finds both by the family's name. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.side_files import SideFiles
from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import EngineError, SpecError
from mdpose_edge.families.mixture import PoseMixture
from mdpose_edge.geometry import FrameGeometry
from mdpose_edge.poses import Poses
from mdpose_edge.spec import HeadSpec, ModelSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mdpose_edge.spec import InputSpec, KeypointSpec

T = TypeVar("T")

Heads = Mapping[str, NDArray[np.float32]]
"""Head tensors by output name, (batch, channels, rows, columns)."""


class Decoder(Protocol):
    """Reads the head tensors of one model family; it holds no state between calls, so that threads may share it."""

    def __call__(self, heads: Heads, geometry: FrameGeometry, index: int = 0) -> Poses:
        """Decode one image of a batch.

        Args:
            heads: head tensors, as an engine gave them. Not modified.
            geometry: where the frame lies in the network input.
            index: which image of the batch.

        Returns:
            The poses in pixels of the frame, best first; keypoints outside the frame are kept.

        Raises:
            EngineError: a head tensor is missing, misshapen, or not finite.
        """


@runtime_checkable
class MixtureDecoder(Decoder, Protocol):
    """A decoder of a family with a density: each image's poses are components of a mixture."""

    def mixture(self, heads: Heads, geometry: FrameGeometry, index: int = 0, like: Heads | None = None) -> PoseMixture:
        """Return the components of one image of a batch, for measures that look below the threshold.

        Args:
            heads: head tensors.
            geometry: where the frame lies in the network input.
            index: which image of the batch.
            like: head tensors of another artifact of the same cells, for the same images. Where a family's components
                mean something in some cells alone, those are taken that are meant there, so that the two compare.

        Raises:
            EngineError: as for decoding.
        """


@dataclass(frozen=True)
class People:
    """The people whose centre a training view shows, in pixels of the network input."""

    keypoints_xy: NDArray[np.float32]
    """(P, K, 2), left and right traded where the view is mirrored."""
    labelled: NDArray[np.bool_]
    """(P, K): false, too, where the view does not show the keypoint."""
    centers_xy: NDArray[np.float32]
    """(P, 2), of the annotated boxes."""
    boxes_xyxy: NDArray[np.float32]
    """(P, 4), upright around the annotated boxes, cut at the view's edge."""
    classes: NDArray[np.int64] | None = None
    """(P,) indices into `ModelSpec.classes`, or None where all are people."""
    keypoints_3d: NDArray[np.float32] | None = None
    """(P, K, 3) m in the axes of the camera that took the picture, left and right traded as above; NaN for people of
    two dimensions, None where all are."""
    cameras: NDArray[np.float64] | None = None
    """(P, 3, 3): from metres in these axes to homogeneous pixels of the network input, whatever the view has turned,
    mirrored and scaled; NaN and None likewise."""
    ignored_xyxy: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(R, 4), likewise, around whom nothing is known: crowds, and people without labelled keypoints."""


@dataclass(frozen=True)
class Loss:
    """What one pass through the network comes to."""

    parts: Mapping[str, Tensor]
    """By the names in `Training.parts`: sums over the pass, whose own sum over `Training.count` is minimised."""
    figures: Mapping[str, float]
    """By the names in `Training.figures`, where they were asked for."""


@dataclass(frozen=True)
class FitImage:
    """A training image as a finished network sees it: unaugmented, resized as on the device."""

    heads: Heads
    """(1, channels, rows, columns) each."""
    keypoints_xy: NDArray[np.float32]
    """(P, K, 2), pixels of the network input, of the people with labelled keypoints."""
    labelled: NDArray[np.bool_]
    """(P, K)"""
    areas: NDArray[np.float32]
    """(P,), of the people, px² of the network input."""


@dataclass(frozen=True)
class Finished:
    """What was fitted to a trained network."""

    spec: ModelSpec
    """With what it changed in the constants."""
    side: SideFiles
    """Of the decoder; none of it is the network's."""
    note: str
    """A sentence for the user."""


@runtime_checkable
class Finishing(Protocol):
    """A family, beside being a `Training`, that fits something to the network once it is trained."""

    def fit_images(self, config: Any) -> int:
        """Return how many training images the fit is to see; 0 for no fit. `config` is the table `loss`."""

    def finish(self, spec: ModelSpec, images: Iterable[FitImage], config: Any, seed: int) -> Finished:
        """Fit.

        Args:
            spec: of the trained network.
            images: of the training split.
            config: the table `loss`.
            seed: the only source of chance.
        """


class Training(Protocol):
    """What trainer and exporter ask of a family: `FAMILY` in its training.py.

    It may have three methods more. `finished_spec(spec, network)`: the spec of the trained network, where training
    measures constants. `keypoint_rows(parameter: str) -> int`: how many rows of a parameter belong to each keypoint, in
    their order, 0 for none; by it, keypoints of the same name go over to a model of others. `decode(loss)`: the
    DecodeSpec of a model that is trained by that table `loss`, or None for `make_spec`'s.
    """

    network_config: type[Any]
    """Frozen dataclass: the table `network` of a configuration."""
    loss_config: type[Any]
    """Frozen dataclass: the table `loss`."""
    parts: tuple[str, ...]
    """Names of the loss's parts, columns of log.csv."""
    figures: Mapping[str, tuple[str, ...]]
    """Columns of log.csv for what else is worth watching, two at most by the title of their diagram."""

    def make_spec(self, config: Any, input_spec: InputSpec, keypoints: KeypointSpec) -> ModelSpec:
        """Return the spec of a network that is about to be trained.

        Raises:
            ConfigError: the options do not fit the keypoints or the input.
        """

    def check_loss(self, spec: ModelSpec, config: Any) -> None:
        """Refuse options of the loss that do not fit the model.

        Raises:
            ConfigError: they do not.
        """

    def counts_everybody(self, config: Any) -> bool:
        """Whether the loss says how many people there are.

        Then people with a box and no keypoints take part, and images with a crowd, which nobody counted, do not.
        """

    def encode(self, people: People, spec: ModelSpec, config: Any) -> Mapping[str, NDArray[Any]]:
        """Return one image's targets, in a data worker; arrays are padded along their first axis to stack them.

        Args:
            people: whom the image shows.
            spec: of the model.
            config: the table `loss`.
        """

    def network(self, spec: ModelSpec, loss: Any = None, *, pretrained: bool | str = False) -> nn.Module:
        """Return a network whose forward takes (N, H, W, 3) uint8 BGR to outputs that `loss` and `heads` read.

        Its trunk is called `backbone`, so that it can be taken over and frozen by that name.

        Args:
            spec: of the model; `spec.network` holds the options.
            loss: what it is going to be trained by, where that decides how it begins.
            pretrained: load the backbone's ImageNet weights; text names the file that holds them.

        Raises:
            ConfigError: there is no such backbone, it does not fit, or its weights cannot be had.
        """

    def count(self, targets: Mapping[str, Tensor]) -> int:
        """Return how many people carry loss in a batch of targets."""

    def loss(
        self,
        outputs: Any,
        targets: Mapping[str, Tensor],
        spec: ModelSpec,
        config: Any,
        generator: torch.Generator,
        *,
        measure: bool = False,
    ) -> Loss:
        """Return the loss of a pass.

        Args:
            outputs: what the network gave, of whatever float type autocast chose.
            targets: of these images, as `encode` made them, stacked.
            spec: of the model.
            config: the table `loss`.
            generator: the only source of chance; equal for all passes of an iteration.
            measure: give `Loss.figures` too.
        """

    def heads(self, outputs: Any, spec: ModelSpec) -> tuple[Tensor, ...]:
        """Return the spec's head tensors, in its order, of what the network gave."""

    def deployed(self, network: nn.Module, spec: ModelSpec) -> nn.Module:
        """Return a copy for export: images to the spec's head tensors as a tuple, batch norms folded, no gradients."""

    def for_input(self, weights: Mapping[str, Tensor], old: InputSpec, new: InputSpec) -> dict[str, Tensor]:
        """Return the weights for another input size, at which they say the same of a person of so many pixels."""

    def summary(self, spec: ModelSpec) -> Mapping[str, str]:
        """Return what tells models of the family apart, in a word or two each, by the name of a column."""


@runtime_checkable
class BoxTraining(Training, Protocol):
    """A family that makes models of boxes of any classes too, of images that have no keypoints."""

    def make_box_spec(self, config: Any, input_spec: InputSpec, classes: tuple[str, ...]) -> ModelSpec:
        """Return the spec of a network of boxes that is about to be trained.

        Raises:
            ConfigError: the options do not fit boxes or the input.
        """


def read_constants(spec: ModelSpec, cls: type[T]) -> T:
    """Read a family's constants from a spec into the family's own dataclass, strictly.

    Raises:
        SpecError: a key is missing, unknown, or of the wrong kind.
    """
    return read_dataclass(cls, spec.constants, where="constants", error=SpecError, defaults=False)


def check_heads(spec: ModelSpec, wanted: tuple[HeadSpec, ...]) -> None:
    """Refuse a spec whose head tensors are not those that its family reads.

    Raises:
        SpecError: one is missing, or has other channels or another stride.
    """
    given = {head.name: head for head in spec.heads}
    for head in wanted:
        if given.get(head.name) != head:
            got = str(given.get(head.name) or ", ".join(given))
            raise SpecError("heads", expected=f"the output {head.name}: {head}", got=got, do="export again")


def check_finite(heads: Heads) -> None:
    """Refuse head tensors that hold a value which is not finite, whether a decoder would read it or not.

    Raises:
        EngineError: there is one.
    """
    for name, tensor in heads.items():
        if not np.isfinite(tensor).all():
            value = tensor[~np.isfinite(tensor)][0]
            do = "export it again with --precision fp32"
            raise EngineError(expected="finite head tensors", got=f"{value} in {name}", do=do)


def head_of(heads: Heads, spec: ModelSpec, head: HeadSpec, index: int) -> NDArray[np.float32]:
    """Return one image's head tensor as (channels, cells), its form checked.

    Raises:
        EngineError: it is missing or misshapen.
    """
    tensor, shape = heads.get(head.name), spec.head_shape(head)
    if tensor is None:
        got = ", ".join(heads) or "none"
        raise EngineError(head.name, expected="a head tensor of this name", got=got, do="export again")
    if tensor.dtype != np.float32 or tensor.shape[1:] != shape:
        raise EngineError(
            head.name,
            expected=f"float32 (N, {shape[0]}, {shape[1]}, {shape[2]})",
            got=f"{tensor.dtype} {tensor.shape}",
            do="run the graph that belongs to this spec",
        )
    cells: NDArray[np.float32] = tensor[index].reshape(shape[0], -1)
    return cells
