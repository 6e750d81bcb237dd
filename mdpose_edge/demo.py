"""The demo: from nothing to poses on every CPU engine, with the public pieces in their order.

Its model is DLA-34 with a small input and head, fine-tuned on freshly drawn people from a small checkpoint that ships
with the package (see docs/model-card.md); nothing is downloaded. A photograph is shown too, through the shipped model
for photographs in INT8 (see docs/model-card-people.md).
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

from mdpose_edge.bundle import open_bundle
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.common.files import write_whole
from mdpose_edge.common.progress import Progress, in_stage
from mdpose_edge.datasets.images import read_image, write_image
from mdpose_edge.draw import contact_sheet
from mdpose_edge.errors import ConfigError, GateError, MissingPackageError, TrainingError
from mdpose_edge.evaluate import evaluate
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.export.shipped_int8 import export_shipped_int8
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.shipped import source_path
from mdpose_edge.stream.folder import infer_images
from mdpose_edge.synth import write_dataset

ASSETS = Path(__file__).parent / "assets"
START_CHECKPOINT = ASSETS / "dla34_synth_int8.safetensors"
CONFIG = ASSETS / "demo.yaml"

SCENE_PX = 320
TRAIN_IMAGES, VAL_IMAGES = 1200, 300
PEOPLE = (1, 2)
OCCLUSION = 0.0
VARIETY = 0.0
"""People stand or walk, turned to the camera: what can be learnt in minutes."""
CALIBRATION_IMAGES = 128
INT8_BUNDLE, INT8_REPORT = "openvino-int8", "int8-report"
SHEET_IMAGES, SHEET_COLUMNS, SHEET_CELL_WH = 12, 4, (320, 320)
"""The last of them is the photograph."""
PHOTO_MODEL, PHOTO_BUNDLE, PHOTO_FLOAT_BUNDLE = "people-int8", "people-openvino-int8", "people-openvino"
PHOTO_IN_SKIMAGE = "data/astronaut.png"
"""Eileen Collins, NASA, in the public domain: scikit-image has it in its wheels."""

MARKER = ".mdpose-edge-demo"
"""Marks a folder that a later demo may replace."""


def run_demo(out: Path, *, seed: int = 0, progress: Progress) -> dict[str, Any]:
    """Draw people, train, export, evaluate each engine, quantize, and paint poses; everything goes under `out`.

    Args:
        out: replaced if it is an earlier demo's; refused if it is anything else.
        seed: of the drawn people and of training.
        progress: called with how far each stage is.

    Returns:
        What summary.json holds: seconds; AP, AP50 and ms per image (median) of each engine; of the INT8 bundle the same
        with the gate's verdict; and of the photograph, scores of the poses found, and the verdict on their model.

    Raises:
        ConfigError: `out` exists and is no demo's folder.
        MissingPackageError: the extra `demo` is not installed.
        GateError: INT8 lost more than the gate allows; there is no INT8 bundle then.
        TrainingError: a SIGTERM ended the training.
    """
    start = time.perf_counter()
    photo = photo_path()
    _clear(out)
    data = out / "data"
    write_dataset(
        data,
        train_images=TRAIN_IMAGES,
        val_images=VAL_IMAGES,
        size=SCENE_PX,
        seed=seed,
        people=PEOPLE,
        occlusion=OCCLUSION,
        variety=VARIETY,
        workers=2,
        progress=in_stage(progress, "drawing people"),
    )
    model = _train(out, data, seed, progress)
    artifacts = {"torch": model, "onnxruntime": out / "onnx", "openvino": out / "openvino"}
    for target in ("onnx", "openvino"):
        _export(model, out / target, target, progress)
    engines = {engine: _measure(engine, path, data, progress) for engine, path in artifacts.items()}
    int8 = _quantize(out, model, data, progress)
    photo_bundle, verdict = _quantize_shipped(out, progress)
    poses = _paint(out, data, photo, photo_bundle, progress)
    shown = {"file": photo.name, "scores": [pose["score"] for pose in poses], "verdict": verdict}
    summary = {"seconds": round(time.perf_counter() - start, 1), "engines": engines, "int8": int8, "photo": shown}
    write_whole(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _train(out: Path, data: Path, seed: int, progress: Progress) -> Path:
    from mdpose_edge.train.config import load_config
    from mdpose_edge.train.loop import LOG_FILE, MODEL_FILE, TrainProgress, train

    config = load_config(CONFIG, [f"seed={seed}", f"init={START_CHECKPOINT}"])

    def show(step: TrainProgress) -> None:
        progress(step.iteration, step.iterations, f"loss {step.loss:.2f}", "training DLA-34")

    model = train(config, data, out / "run", report=show)
    if model.name != MODEL_FILE:
        raise TrainingError("the demo's training", expected="its end", got="a SIGTERM", do="run mdpose-edge demo again")
    for name in (LOG_FILE, model.name):
        (out / "run" / name).replace(out / name)
    shutil.rmtree(out / "run")
    return out / model.name


def _export(model: Path, out: Path, target: str, progress: Progress) -> None:
    export_checkpoint(
        model,
        out,
        ExportOptions(target=target),
        progress=in_stage(progress, f"exporting {target}"),
    )


def _measure(engine: str, model: Path, data: Path, progress: Progress) -> dict[str, float | None]:
    found = evaluate(model, data, runtime=engine, progress=in_stage(progress, f"evaluating {engine}"))
    return {"AP": found.figures["AP"], "AP50": found.figures["AP50"], "ms": round(found.ms["median"], 2)}


def _quantize(out: Path, model: Path, data: Path, progress: Progress) -> dict[str, Any]:
    """Make an INT8 bundle that the gate has held against the float one, on the pictures kept from training."""
    calibration = out / "calibration"
    make_calibration_set(
        data,
        calibration,
        read_model_spec(model).input,
        split="train",
        num=CALIBRATION_IMAGES,
        progress=in_stage(progress, "choosing calibration images"),
    )
    bundle = out / INT8_BUNDLE
    export_checkpoint(
        model,
        bundle,
        ExportOptions(target="openvino", precision="int8", calib=calibration, val_data=data, report=out / INT8_REPORT),
        progress=in_stage(progress, "exporting INT8"),
    )
    accuracy = open_bundle(bundle).spec.provenance.accuracy
    assert accuracy is not None
    return {**_measure("openvino", bundle, data, progress), "verdict": accuracy["verdict"]}


def photo_path() -> Path:
    """Return the photograph that is shown, which a dependency has with it.

    Raises:
        MissingPackageError: it is not installed.
    """
    found = importlib.util.find_spec("skimage")
    photo = None if found is None or found.origin is None else Path(found.origin).parent / PHOTO_IN_SKIMAGE
    if photo is None or not photo.is_file():
        expected, do = "the package scikit-image, for the photograph", 'run: pip install "mdpose-edge[demo]"'
        raise MissingPackageError("mdpose-edge demo", expected=expected, got="none installed", do=do)
    return photo


def _quantize_shipped(out: Path, progress: Progress) -> tuple[Path, str]:
    """Export the model for photographs in INT8, or in float where the gate forbids that; return it and the verdict."""
    bundle, show = out / PHOTO_BUNDLE, in_stage(progress, f"exporting {PHOTO_MODEL}")
    try:
        export_shipped_int8(PHOTO_MODEL, bundle, "openvino", progress=show)
    except GateError as error:
        bundle = out / PHOTO_FLOAT_BUNDLE
        export_checkpoint(source_path(PHOTO_MODEL), bundle, ExportOptions(target="openvino"), progress=show)
        return bundle, f"let INT8 not pass ({error.got}): float is shown instead"
    accuracy = open_bundle(bundle).spec.provenance.accuracy
    assert accuracy is not None
    return bundle, str(accuracy["verdict"])


def _paint(out: Path, data: Path, photo: Path, photo_bundle: Path, progress: Progress) -> list[dict[str, Any]]:
    """Paint drawn people and the photograph on one sheet; return the photograph's poses."""
    images = sorted((data / "val2017").glob("*.jpg"))[: SHEET_IMAGES - 1]
    painted = out / "painted"
    show = in_stage(progress, "painting poses")
    infer_images(out / "openvino", [str(path) for path in images], painted, progress=show)
    found = infer_images(photo_bundle, [photo], painted)
    names = [path.name for path in (*images, photo)]
    sheet = contact_sheet([read_image(painted / name, orient=False) for name in names], SHEET_COLUMNS, SHEET_CELL_WH)
    write_image(out / "poses.png", sheet)
    poses: list[dict[str, Any]] = found["images"][0]["poses"]
    return poses


def _clear(out: Path) -> None:
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            str(out), expected="a new folder, or an earlier demo's", got="something else", do="pass another --out"
        )
    shutil.rmtree(out, ignore_errors=True)
    write_whole(out / MARKER, b"Made by mdpose-edge demo, which may replace this folder.\n")
