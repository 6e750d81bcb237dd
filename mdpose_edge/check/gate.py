"""The gate as a whole: open both sides, measure, judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge import __version__
from mdpose_edge.check.images import CheckImages, check_limit, images_of
from mdpose_edge.check.layers import LayerErrors, layer_errors
from mdpose_edge.check.limits import Limits
from mdpose_edge.check.measure import Measurement, measure
from mdpose_edge.check.measures.outputs import TensorError
from mdpose_edge.check.recording import RECORDING_SUFFIX, Recording
from mdpose_edge.check.results import RESULTS_SUFFIX, Results
from mdpose_edge.check.sides import Artifact, RecordedArtifact, Side
from mdpose_edge.check.verdict import Verdict, judge
from mdpose_edge.common.optional import require
from mdpose_edge.common.progress import Progress
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.spec import ModelSpec


@dataclass(frozen=True)
class SideInfo:
    """Which artifact ran where."""

    name: str
    engine: str
    target: str
    precision: str
    input: str


@dataclass(frozen=True)
class Check:
    """A check that was made."""

    candidate: SideInfo
    reference: SideInfo
    images: CheckImages
    spec: ModelSpec
    """The candidate's."""
    measurement: Measurement
    verdict: Verdict
    limits: Limits
    """Of what any model has; each finding has its own."""
    layers: LayerErrors | None = None
    """None where nobody asked."""

    @property
    def unmeasured(self) -> str:
        """Why accuracy was not measured, or ""."""
        return "" if self.images.split is not None else "without annotations: accuracy was not measured"

    def to_json_dict(self) -> dict[str, Any]:
        """Return verdict and figures, ready for json.dump."""
        return {
            "toolkit_version": __version__,
            "candidate": vars(self.candidate),
            "reference": vars(self.reference),
            "data": self.images.where,
            "images": len(self.images),
            "labelled": self.images.split is not None,
            **self.verdict.to_json_dict(),
            "limits": asdict(self.limits),
            "outputs": _errors(self.measurement.outputs),
            **({} if self.layers is None else {"layers": _errors(self.layers.errors)}),
        }


def _errors(outputs: Iterable[TensorError]) -> dict[str, dict[str, float]]:
    return {o.name: {"rms_error": o.rms, "spread": o.spread, "largest_error": o.largest} for o in outputs}


def check(
    candidate: str | Path,
    reference: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    *,
    runtime: str | None = None,
    reference_runtime: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    limits: Limits | None = None,
    layers: bool = False,
    calibration: Iterable[NDArray[np.uint8]] = (),
    progress: Progress | None = None,
    data_format: str | None = None,
) -> Check:
    """Ask whether a candidate is still the model that its reference is.

        found = check("int8-bundle/", "bundle/", "path/to/coco")
        print(found.verdict.held, found.verdict.sentence())

    Args:
        candidate: a bundle or checkpoint.
        reference: a bundle or checkpoint; a .npz recording of one; or the .json results of an evaluation.
        data: a dataset's folder, as docs/data.md lays it out, or one of plain images, on which accuracy is not
            measured; None for the images that a recording carries.
        split: "val", ...: of a dataset.
        runtime: the candidate's engine, or None for its own choice.
        reference_runtime: likewise for a reference that is run.
        threads: CPU threads of each engine.
        limit: only the first so many images.
        limits: what to hold the figures against.
        layers: also compare the layers inside, on a few images; they are not judged.
        calibration: the inputs (H, W, 3) that the candidate's ranges were measured on, where they are at hand.
        progress: called with (images done, images in all).
        data_format: "coco", "crowdpose", "ochuman", "instances", or None to take the only one that is there.

    Raises:
        MdposeError: it cannot be measured.
    """
    check_limit(limit)
    limits = limits or Limits()
    _check_reference(reference, reference_runtime)
    with closing(Artifact(candidate, runtime=runtime, threads=threads)) as one:
        images = _images_to_check(reference, data, split, limit, data_format, one.spec)
        if images.split is not None:
            require("faster_coco_eval", extra="eval", feature="a check on annotated images")
        with _open_reference(reference, images, one.spec, runtime=reference_runtime, threads=threads) as other:
            _check_same_kind(one, other)
            measurement = measure(one, other, images, progress, calibration=calibration, limits=limits)
            infos = _info(one), _info(other)
    inside = None
    if layers:
        inside = layer_errors(candidate, reference, images, runtime=runtime, reference_runtime=reference_runtime)
    return Check(*infos, images, one.spec, measurement, judge(measurement), limits, inside)


def record(
    model: str | Path,
    path: str | Path,
    data: str | Path,
    split: str = "val",
    *,
    runtime: str | None = None,
    threads: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    data_format: str | None = None,
) -> int:
    """Write a model's head tensors, with the images, as a reference for checks on other machines.

    Args:
        model: a bundle or checkpoint.
        path: the .npz file to write.
        data: a dataset's folder, or one of plain images.
        split: "val", ...: of a dataset.
        runtime: the engine, or None for the model's own choice.
        threads: CPU threads of the engine.
        limit: only the first so many images.
        progress: called after each image.
        data_format: as for `check`.

    Returns:
        How many images were recorded.

    Raises:
        MdposeError: the model, engine or an image fails; no file is left.
    """
    images = images_of(data, split, limit, data_format)
    with closing(Artifact(model, runtime=runtime, threads=threads)) as artifact:
        artifact.record(Path(path), images, progress)
    return len(images)


def _check_reference(reference: str | Path, runtime: str | None) -> None:
    """Refuse what is no reference before the candidate is loaded and images are looked for."""
    path = Path(reference)
    if path.suffix not in (RESULTS_SUFFIX, RECORDING_SUFFIX):
        read_model_spec(path)
        return
    if runtime is not None:
        expected, do = "a reference that is run", "leave the option out"
        raise ConfigError("--reference-runtime", expected=expected, got=str(reference), do=do)
    if not path.is_file():
        do = "correct the path"
        raise DataError(str(path), expected="a recording or results to compare with", got="no such file", do=do)


def _images_to_check(
    reference: str | Path,
    data: str | Path | None,
    split: str,
    limit: int | None,
    data_format: str | None,
    spec: ModelSpec,
) -> CheckImages:
    if data is not None:
        return images_of(data, split, limit, data_format, spec)
    if Path(reference).suffix != RECORDING_SUFFIX:
        raise ConfigError("--data", expected="a folder with images", got="none", do="give one, or a .npz reference")
    return Recording(reference).images(limit)


@contextmanager
def _open_reference(
    reference: str | Path, images: CheckImages, candidate: ModelSpec, *, runtime: str | None, threads: int | None
) -> Iterator[Side]:
    """Open what the candidate is compared with, by the kind of file it is."""
    suffix = Path(reference).suffix
    side: Side
    if suffix == RESULTS_SUFFIX:
        side = Results(reference, images, candidate)
    elif suffix == RECORDING_SUFFIX:
        side = RecordedArtifact(Recording(reference), str(reference))
    else:
        side = Artifact(reference, runtime=runtime, threads=threads, option="--reference-runtime")
    with closing(side):
        yield side


def _check_same_kind(candidate: Artifact, reference: Side) -> None:
    """Refuse to compare poses of other keypoints, or boxes of other classes."""
    if reference.spec is None:
        return
    kinds = [("keypoints", candidate.spec.keypoints.names, reference.spec.keypoints.names)]
    kinds.append(("classes", candidate.spec.classes, reference.spec.classes))
    for kind, ours, theirs in kinds:
        if ours != theirs:
            expected, got = f"the candidate's {kind} ({', '.join(ours) or 'none'})", ", ".join(theirs) or "none"
            do = "compare artifacts of one model"
            raise DataError(reference.name, expected=expected, got=got, do=do)


def _info(side: Side) -> SideInfo:
    spec = side.spec
    if spec is None:
        return SideInfo(side.name, side.engine, "unknown", "unknown", "unknown")
    size = f"{spec.input.width} x {spec.input.height} px, {spec.input.resize}"
    return SideInfo(side.name, side.engine, spec.target, spec.precision, size)
