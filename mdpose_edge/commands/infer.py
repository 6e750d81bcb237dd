"""`mdpose-edge infer`: poses of what one has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdpose_edge.commands.console import (
    STDOUT,
    CameraText,
    Focal,
    Force,
    JsonFile,
    Model,
    Runtime,
    Threads,
    progress_shown,
    write_json,
)

if TYPE_CHECKING:
    from mdpose_edge.common.progress import Progress
    from mdpose_edge.stream.result import Report

THRESHOLD = "Poses scoring at or below this are left out. Default: the model's own."
SOURCES = "Images, folders, quoted globs; or one video, camera (0, /dev/video0, csi:0), URL, or - for raw frames."


def infer(
    model: Model,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help=SOURCES)],
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Painted: a video by its suffix (.mp4), else a folder.")
    ] = None,
    jsonl: Annotated[
        str | None, typer.Option(metavar="FILE", help="A line of JSON for each frame; - is stdout.")
    ] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="A line for each pose; - is stdout.")] = None,
    coco: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO results; images are listed in FILE's .images.json.")
    ] = None,
    ids_from: Annotated[
        Path | None, typer.Option(metavar="ANNOTATIONS", help="With --coco: take the image ids of this COCO file.")
    ] = None,
    runtime: Runtime = None,
    threads: Threads = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help=THRESHOLD)] = None,
    sigma: Annotated[bool, typer.Option("--sigma", help="Draw each keypoint's uncertainty as an ellipse.")] = False,
    track: Annotated[bool, typer.Option("--track", help="Give people identities over time.")] = False,
    smooth: Annotated[bool, typer.Option("--smooth", help="Steadier keypoints; implies --track.")] = False,
    frame_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Of raw frames on stdin; a request where it is a camera.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.01, help="Of images and raw frames (30); a request where it is a camera.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    reconnect: Annotated[
        int | None, typer.Option(min=0, help="Attempts in a row to open a lost camera or stream. Default: 5.")
    ] = None,
    stall: Annotated[
        float | None, typer.Option(min=0.1, help="Silence after which it counts as lost, s. Default: 5.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first image that cannot be read; else the others are done.")
    ] = False,
    camera: CameraText = None,
    focal: Focal = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Find people in images, videos, cameras and streams.

    Images with --out, --json or both, without more, give painted copies and one JSON document with all poses. All else
    runs frame by frame; --json then is a summary of the run. Ctrl-C ends it and finishes every file. Where one of
    several images cannot be read, the exit code is 1.
    """
    from mdpose_edge.camera import asked_camera
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.stream.run import names_video
    from mdpose_edge.stream.sources import check_used, names_images, names_live

    video = out if out is not None and names_video(out) else None
    named = {"--out": video, "--jsonl": jsonl, "--csv": csv, "--coco": coco, "--json": json_file}
    check_outputs(named, [model, *sources, ids_from], force=force)
    options: dict[str, Any] = {"runtime": runtime, "threads": threads, "threshold": threshold}
    options["camera"] = asked_camera(camera, focal)
    if not any(map(names_live, sources)):
        check_used("files or stdin", {"--reconnect": reconnect, "--stall": stall})
    streamed = any((jsonl, csv, coco, ids_from, track, smooth))
    alone = out is not None or json_file is not None
    if alone and not streamed and video is None and all(map(names_images, sources)):
        check_used("images", {"--frame-size": frame_size, "--fps": fps})
        if frames is None:
            _infer_images(model, sources, out, json_file, {**options, "sigma": sigma, "force": force, "strict": strict})
            return
    from mdpose_edge.stream.live import Reconnect
    from mdpose_edge.stream.run import Outputs, infer_source

    outputs = Outputs(out, jsonl, csv, coco, sigma, json_file, ids_from, force)
    patience: dict[str, Any] = {"attempts": reconnect, "stall_s": stall}
    with progress_shown("inferring") as report:
        done = infer_source(
            model,
            sources[0] if len(sources) == 1 else sources,
            outputs,
            **options,
            track=track,
            smooth=smooth,
            frame_size=frame_size,
            fps=fps,
            reconnect=Reconnect(**{name: value for name, value in patience.items() if value is not None}),
            strict=strict,
            max_frames=frames,
            note=_note,
            progress=_of_known_length(report),
        )
    write_json(json_file, done.to_json_dict())
    typer.echo(_summary_lines(done), err=outputs.use_stdout)
    if done.skipped and all(map(names_images, sources)):
        raise typer.Exit(1)


def _note(sentence: str) -> None:
    typer.echo(f"mdpose-edge: {sentence}", err=True)


def _infer_images(
    model: Path, sources: list[str], out: Path | None, json_file: Path | None, options: dict[str, Any]
) -> None:
    from mdpose_edge.stream.folder import infer_images
    from mdpose_edge.stream.run import stopped_by_signals

    with progress_shown("inferring") as report, stopped_by_signals() as stop:
        document = infer_images(model, sources, out, note=_note, stop=stop, progress=report, **options)
    write_json(json_file, document)
    poses = sum(len(image["poses"]) for image in document["images"])
    stopped = ", stopped before the others" if document["stopped"] else ""
    skipped = f", {len(document['skipped'])} skipped" if document["skipped"] else ""
    where = out or ("stdout" if json_file == STDOUT else json_file)
    typer.echo(f"{where}: {poses} poses in {len(document['images'])} images{stopped}{skipped}")
    if document["skipped"]:
        raise typer.Exit(1)


def _of_known_length(progress: Progress) -> Progress:
    """Pass on the progress of sources that have an end."""

    def report(done: int, total: int, note: str = "", stage: str = "") -> None:
        if total:
            progress(done, total, note, stage)

    return report


def _summary_lines(done: Report) -> str:
    """Say in a few lines what a run did."""
    lost = [f"{count} {word}" for word, count in _losses(done).items() if count]
    lines = [f"{done.source}: {done.people} poses in {done.frames} frames, {done.fps:.1f} frames/s" + "".join(
        f", {part}" for part in lost
    )]  # fmt: skip
    for output in done.outputs if done.frames else []:
        where = output.get("folder") or output["file"]
        codec = f", {output['codec']}" if output.get("codec") else ""
        if where != "-":
            lines.append(f"{where}: {output['kind']}{codec}")
    return "\n".join(lines)


def _losses(done: Report) -> dict[str, int]:
    return {"dropped": done.dropped, "skipped": done.skipped, "reconnects": done.reconnects}
