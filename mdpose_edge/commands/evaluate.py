"""`mdpose-edge eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import (
    CameraText,
    Data,
    DataFormat,
    Focal,
    Force,
    JsonFile,
    Keypoints,
    Model,
    Runtime,
    Split,
    Threads,
    figure_text,
    place_for_file,
    print_table,
    progress_shown,
    write_json,
)


def evaluate(
    model: Model,
    data: Data,
    split: Split = "val",
    runtime: Runtime = None,
    threads: Threads = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    results: Annotated[
        Path, typer.Option(callback=place_for_file, help="Where the poses go, in COCO's result format.")
    ] = Path("results.json"),
    data_format: DataFormat = None,
    keypoints: Keypoints = None,
    camera: CameraText = None,
    focal: Focal = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """Measure accuracy by the protocol of the data (COCO, CrowdPose, OCHuman), and write the poses behind it."""
    from mdpose_edge.camera import asked_camera
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.datasets.coco import write_results
    from mdpose_edge.datasets.doubts import doubts_in_words
    from mdpose_edge.datasets.keypoints import keypoint_set
    from mdpose_edge.evaluate import evaluate as run

    check_outputs({"--results": results, "--json": json_file}, [model, data, keypoints], force=force)
    asked: dict[str, Any] = {"runtime": runtime, "threads": threads, "limit": limit, "data_format": data_format}
    asked["camera"] = asked_camera(camera, focal)
    asked["keypoints"] = None if keypoints is None else keypoint_set(keypoints)
    with progress_shown("evaluating") as report:
        found = run(model, data, split, progress=report, **asked)
    write_results(results, found.results)
    write_json(json_file, found.to_json_dict())
    rows = [(name, "no such people" if value is None else f"{value:.4f}") for name, value in found.figures.items()]
    rows += [(name, figure_text(value)) for name, value in (found.solid or {}).items()]
    rows += [("ms per image, median", f"{found.ms['median']:.1f}"), ("ms per image, p90", f"{found.ms['p90']:.1f}")]
    if found.doubts:
        typer.echo(f"mdpose-edge: {doubts_in_words(found.doubts, data)}", err=True)
    title = f"{model} on {found.images} images of {data} ({found.format}), {found.engine}"
    print_table(title, ("figure", "value"), rows)
    typer.echo(f"poses: {results}")
