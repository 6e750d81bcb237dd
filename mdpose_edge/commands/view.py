"""`mdpose-edge view`: what a board sees, in a browser."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mdpose_edge.commands.console import CameraText, Focal, Force, JsonFile, Model, Runtime, Threads, write_json

THRESHOLD = (
    "Poses scoring at or below this are not sent. Default: 0.1, or the model's own threshold where that is less. The "
    "page's slider starts at the model's own, or here if that is more."
)
LEAST = 0.1
"""Score down to which poses are sent, so that the slider has where to go."""


def view(
    model: Model,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A camera, stream, video, folder: see infer.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 lets the system choose.")] = 8080,
    host: Annotated[str, typer.Option(help="Another address than loopback needs --token.")] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="MDPOSE_VIEW_TOKEN", help="What viewers must know.", show_default=False)
    ] = None,
    runtime: Runtime = None,
    threads: Threads = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD)] = None,
    frame_size: Annotated[str | None, typer.Option(metavar="WxH", help="Of a camera, or raw frames.")] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="Of a camera, images, or raw frames.")] = None,
    max_fps: Annotated[float, typer.Option(min=0.1, help="Frames that a viewer gets, per second.")] = 30.0,
    track: Annotated[bool, typer.Option("--track", help="Give people identities over time.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Steadier keypoints; implies --track.")] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Play a file over and over.")] = False,
    camera: CameraText = None,
    focal: Focal = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Show the poses live in a browser; files play at their own speed."""
    from mdpose_edge.camera import asked_camera
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.estimator import PoseEstimator
    from mdpose_edge.runtimes.registry import read_model_spec
    from mdpose_edge.stream.run import stopped_by_signals
    from mdpose_edge.stream.sources import open_source
    from mdpose_edge.track.tracker import PoseTracker
    from mdpose_edge.view.access import Access
    from mdpose_edge.view.paced import play
    from mdpose_edge.view.run import view_source

    check_outputs({"--json": json_file}, [model, source], force=force)
    Access(host, token)  # before a model is loaded
    taken_by = asked_camera(camera, focal)

    def note(sentence: str) -> None:
        print(f"mdpose-edge: {sentence}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        opened = play(lambda: open_source(source, frame_size=frame_size, fps=fps, note=note), stop, loop=loop)
        playing = stack.enter_context(opened)
        if threshold is None:
            threshold = min(LEAST, read_model_spec(model).decode.score_threshold)
        estimator = stack.enter_context(
            PoseEstimator(model, runtime=runtime, threads=threads, threshold=threshold, camera=taken_by)
        )
        sigmas = estimator.spec.keypoints.sigmas
        report = view_source(
            estimator,
            playing,
            model=_short_name(model),
            threshold=threshold,
            host=host,
            port=port,
            token=token,
            tracker=PoseTracker(sigmas, smooth=smooth) if track or smooth else None,
            max_fps=max_fps,
            stop=stop,
            ready=lambda url: typer.echo(f"{url}{'?token=...' if token else ''}"),
        )
    write_json(json_file, report.to_json_dict())
    typer.echo(f"{report.frames} frames, {report.fps:.1f} per second, {report.dropped} dropped")


def _short_name(model: Path) -> str:
    return model.resolve().name
