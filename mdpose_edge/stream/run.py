"""A source through a model into files, as the command line asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.camera import Camera
from mdpose_edge.common.outputs import check_output
from mdpose_edge.common.progress import Progress
from mdpose_edge.datasets.image_ids import ImageIds, ids_of_annotations, ids_of_names, image_list_beside
from mdpose_edge.datasets.images import IMAGE_SUFFIXES
from mdpose_edge.errors import ConfigError, InputError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.spec import KeypointSpec
from mdpose_edge.stream.files import ImageSource, VideoFile
from mdpose_edge.stream.frames import FrameSource, Note, ignore_note
from mdpose_edge.stream.live import Reconnect
from mdpose_edge.stream.painted import PaintedImages, Painter, plan_copies
from mdpose_edge.stream.pipeline import run_pipeline
from mdpose_edge.stream.result import Report, Sink
from mdpose_edge.stream.sinks import CocoSink, CsvSink, JsonlSink
from mdpose_edge.stream.sources import open_source
from mdpose_edge.stream.video import VIDEO_SUFFIXES, VideoSink
from mdpose_edge.track.tracker import PoseTracker

_OTHER_VIDEO_SUFFIXES = (".flv", ".gif", ".m4v", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
"""Of files that somebody may hope for: a folder of such a name would surprise them."""


@dataclass(frozen=True)
class Outputs:
    """Where results go; at least one."""

    painted: Path | None = None
    """A video by its suffix, else a folder for painted images."""
    jsonl: str | None = None
    csv: str | None = None
    """Paths, or "-" for stdout."""
    coco: Path | None = None
    sigma: bool = False
    """Paint each keypoint's uncertainty as well."""
    summary: Path | None = None
    """A file that the caller writes after the run, which none of these may be; --json."""
    ids_from: Path | None = None
    """A COCO annotation file whose image ids `coco` takes, by file name; images."""
    force: bool = False
    """Replace files that no command here made, as well."""

    def __post_init__(self) -> None:
        if not (self.painted or self.jsonl or self.csv or self.coco):
            do = "give at least one"
            raise ConfigError("infer", expected="--out, --jsonl, --csv or --coco", got="none", do=do)
        on_stdout = [option for option, name in self._named.items() if str(name) == "-"]
        for option in on_stdout:
            if option in ("--out", "--coco"):
                do = "name it; on stdout there are --jsonl, --csv and --json"
                raise ConfigError(option, expected="a file or folder", got="-", do=do)
        if len(on_stdout) > 1:
            got = f"{on_stdout[0]} - as well"
            raise ConfigError(on_stdout[1], expected="one writer on stdout", got=got, do="name a file")
        if self.ids_from is not None and self.coco is None:
            raise ConfigError("--ids-from", expected="--coco, whose ids it sets", got="none", do="give --coco FILE")
        if self.painted is not None:
            names_video(self.painted)
        taken: dict[Path, str] = {}
        for option, path in self.files.items():
            if (first := taken.setdefault(path, option)) != option:
                raise ConfigError(option, expected=f"another file than {first}", got=str(path), do="rename one")

    @property
    def files(self) -> dict[str, Path]:
        """The files that are replaced, resolved, by the option that names each; devices and pipes are none."""
        paths = {
            option: Path(name).resolve()
            for option, name in self._named.items()
            if name is not None and str(name) != "-"
        }
        return {option: path for option, path in paths.items() if path.is_file() or not path.exists()}

    @property
    def _named(self) -> dict[str, str | Path | None]:
        return {
            "--out": self.painted,
            "--jsonl": self.jsonl,
            "--csv": self.csv,
            "--coco": self.coco,
            "--coco, its images": None if self.coco is None else image_list_beside(self.coco),
            "--json": self.summary,
        }

    @property
    def use_stdout(self) -> bool:
        """True where stdout belongs to the results."""
        return "-" in (self.jsonl, self.csv)


def infer_source(
    model: str | Path,
    source: str | int | Sequence[str],
    outputs: Outputs,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    threshold: float | None = None,
    camera: Camera | float | None = None,
    track: bool = False,
    smooth: bool = False,
    frame_size: str | None = None,
    fps: float | None = None,
    reconnect: Reconnect = Reconnect(),  # noqa: B008  (frozen)
    strict: bool = False,
    max_frames: int | None = None,
    note: Note = ignore_note,
    progress: Progress | None = None,
) -> Report:
    """Run a source through a model.

    The source is opened before the model, so that a wrong word is told at once. SIGINT and SIGTERM end the run as the
    end of the source would; a second one ends the program.

    Args:
        model: a checkpoint or a bundle.
        source: what sources.open_source takes.
        outputs: where results go.
        runtime: the engine, or None for the artifact's own choice.
        threads: CPU threads of the engine, or None for its default.
        threshold: poses with a score at or below this are left out; None takes the model's own.
        camera: what took the frames, for a model of three dimensions: see PoseEstimator.
        track: True gives people identities over time.
        smooth: True gives the tracker's estimate of each keypoint instead of the frame's own; implies `track`.
        frame_size: see open_source.
        fps: see open_source.
        reconnect: see open_source.
        strict: see open_source.
        max_frames: end after so many.
        note: called with a sentence about what was overcome.
        progress: called after each frame.

    Returns:
        What was done.

    Raises:
        InputError: the source cannot be used, or was lost; it says what was kept.
        OutputError: a result cannot be written, or would replace what is read or somebody else's file.
        MdposeError: the artifact or the engine fails.
    """
    with ExitStack() as stack:
        frames = stack.enter_context(
            open_source(source, frame_size=frame_size, fps=fps, reconnect=reconnect, strict=strict, note=note)
        )
        _check_files_stay(frames, outputs)
        copies = _image_copies(frames, outputs.painted)
        _check_pictures_stay(copies, outputs)
        ids = _image_ids(frames, outputs.ids_from, model)
        options: dict[str, Any] = {"runtime": runtime, "threads": threads, "threshold": threshold, "camera": camera}
        estimator = stack.enter_context(PoseEstimator(model, **options))
        spec = estimator.spec
        tracker = PoseTracker(spec.keypoints.sigmas, smooth=smooth) if track or smooth else None
        stop = stack.enter_context(stopped_by_signals())
        classes = spec.classes if len(spec.classes) > 1 else ()
        sinks = make_sinks(outputs, frames, spec.keypoints, copies, ids, note, classes)
        with _kept_told(progress) as counted:
            return run_pipeline(
                estimator, frames, sinks, tracker=tracker, stop=stop, max_frames=max_frames, progress=counted
            )


def make_sinks(
    outputs: Outputs,
    source: FrameSource,
    keypoints: KeypointSpec,
    copies: dict[Path, Path] | None,
    ids: ImageIds | None,
    note: Note,
    classes: Sequence[str] = (),
) -> list[Sink]:
    """Open what the outputs name; closes those that were opened where one cannot be."""
    paint = Painter(keypoints, sigma=outputs.sigma, classes=classes)
    sinks: list[Sink] = []
    try:
        if outputs.jsonl is not None:
            sinks.append(JsonlSink(outputs.jsonl, classes))
        if outputs.csv is not None:
            sinks.append(CsvSink(outputs.csv, keypoints, classes))
        if outputs.coco is not None:
            sinks.append(CocoSink(outputs.coco, ids, classes))
        if outputs.painted is not None:
            is_video = names_video(outputs.painted)
            sinks.append(
                VideoSink(outputs.painted, paint, source, note=note)
                if is_video
                else PaintedImages(outputs.painted, paint, copies)
            )
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks


def names_video(path: Path) -> bool:
    """Say whether a path names a video to be written, rather than a folder.

    Raises:
        ConfigError: it names a picture, or a video of a kind that is not written.
    """
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, *_OTHER_VIDEO_SUFFIXES):
        return False
    if suffix not in VIDEO_SUFFIXES:
        expected = f"a folder, or a video ({', '.join(VIDEO_SUFFIXES)})"
        raise ConfigError("--out", expected=expected, got=str(path), do="name the folder that painted pictures go to")
    return True


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Return an event that the first SIGINT or SIGTERM sets; the next one does what it always does.

    Only the main thread may call it, as Python has it; elsewhere the event is nobody's.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: Any) -> None:
        restore()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()


@contextmanager
def _kept_told(progress: Progress | None) -> Iterator[Progress]:
    """Return a progress to call, and add to the sentence of a source that fails what became of the results before."""
    frames = 0

    def counted(done: int, total: int, note: str = "", stage: str = "") -> None:
        nonlocal frames
        frames = done
        if progress is not None:
            progress(done, total)

    try:
        yield counted
    except InputError as error:
        before = f"{frames} frame{'s' if frames > 1 else ''}"
        kept = f"the results of the {before} before that are kept" if frames else "no result was written"
        raise InputError(error.where, expected=error.expected, got=error.got, do=f"{error.do}; {kept}") from error


def _image_ids(source: FrameSource, annotations: Path | None, model: str | Path) -> ImageIds | None:
    """Number image files; frames of anything else are numbered as they come."""
    if isinstance(source, ImageSource):
        if annotations is None:
            return ids_of_names(source.paths)
        spec = read_model_spec(model)
        return ids_of_annotations(source.paths, annotations, None if spec.keypoints.names else spec.classes)
    if annotations is not None:
        got, do = source.name, "leave it out: frames of a video or camera are numbered from 1"
        raise ConfigError("--ids-from", expected="images as the source", got=got, do=do)
    return None


def _check_files_stay(source: FrameSource, outputs: Outputs) -> None:
    """Refuse to write over what is being read, and over files that no command here made."""
    if isinstance(source, ImageSource):
        sources = list(source.paths)
    else:
        sources = [Path(source.name)] if isinstance(source, VideoFile) else []
    here = [one for one in sources if one.exists()]
    for option, path in outputs.files.items():
        check_output(option, path, here, force=outputs.force)


def _check_pictures_stay(copies: dict[Path, Path] | None, outputs: Outputs) -> None:
    """Refuse painted pictures that would replace somebody else's, before the model is opened."""
    if outputs.painted is None or names_video(outputs.painted):
        return
    painted = outputs.painted.glob("frame_*.jpg") if copies is None else copies.values()
    for path in painted:
        check_output("--out", path, (), force=outputs.force)


def _image_copies(source: FrameSource, painted: Path | None) -> dict[Path, Path] | None:
    """Plan the painted copies of image files before the model is opened."""
    if not isinstance(source, ImageSource) or painted is None or names_video(painted):
        return None
    return plan_copies(source.paths, painted)
