"""What each configuration costs: parameters, arithmetic, and, measured on the spot, time on an engine."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require
from mdpose_edge.errors import ConfigError
from mdpose_edge.spec import NO_KEYPOINTS, ModelSpec

WARM_UP_RUNS = 3
COCO_CLASSES = tuple(f"category {number}" for number in range(1, 81))
"""As many as COCO's instances have: what a configuration of boxes is counted with that names none."""
CALIBRATION_SCENES = 8
"""Drawn scenes that INT8 ranges of a random network are measured on: enough to make the graph, whose time is wanted."""


@dataclass(frozen=True)
class Preset:
    """A configuration and what it costs per image."""

    name: str
    """Of the file, without suffix."""
    family: str
    backbone: str
    input_wh: tuple[int, int]
    summary: dict[str, str]
    """What tells models of the family apart."""
    parameters: int
    """Of the exported network."""
    gflop: float
    """One forward pass; a multiplication with its addition counts as two, as torch.utils.flop_counter has it."""


def preset_files() -> list[Path]:
    """List the configurations of the checkout that this package is installed from.

    Raises:
        ConfigError: it is not installed from one.
    """
    folder = Path(__file__).parents[2] / "configs"
    found = sorted(folder.glob("*.yaml"))
    if not found:
        do = "name configuration files: mdpose-edge models CONFIG..."
        raise ConfigError(str(folder), expected="configurations beside the package", got="none", do=do)
    return found


def describe(path: Path) -> Preset:
    """Read a configuration and count; no weights are made.

    Raises:
        MissingPackageError: the extra `train` is not installed.
        ConfigError: the configuration cannot be used.
    """
    torch = require("torch", extra="train", feature="counting parameters")
    from torch.utils.flop_counter import FlopCounterMode

    from mdpose_edge.families.registry import training_of

    spec = _spec(path)
    family = training_of(spec.family)
    with torch.device("meta"):
        network = family.deployed(family.network(spec), spec)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, spec.input.height, spec.input.width, 3, dtype=torch.uint8))
    return Preset(
        name=path.stem,
        family=spec.family,
        backbone=str(spec.network["backbone"]),
        input_wh=(spec.input.width, spec.input.height),
        summary=dict(family.summary(spec)),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflop=counter.get_total_flops() / 1e9,
    )


def measure_ms(path: Path, target: str, precision: str, *, threads: int, repeats: int) -> NDArray[np.float64]:
    """Export a configuration with random weights and time its engine: (repeats,) ms of one image, network alone.

    Args:
        path: the configuration.
        target: "onnx" or "openvino".
        precision: one that the target's export offers.
        threads: CPU threads of the engine.
        repeats: runs that count.

    Raises:
        MissingPackageError: the extra `export` is not installed.
        ExportError: no such target or precision, or the export fails.
    """
    from mdpose_edge.export.bundle import export_checkpoint
    from mdpose_edge.export.options import ExportOptions
    from mdpose_edge.runtimes.registry import open_engine

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _random_checkpoint(path, Path(folder) / "random.safetensors")
        calib = _calibrate(checkpoint, Path(folder)) if precision == "int8" else None
        options = ExportOptions(target=target, precision=precision, calib=calib, allow_few=calib is not None)
        bundle = export_checkpoint(checkpoint, Path(folder) / "bundle", options).path
        spec, adapter = open_engine(bundle, None, threads)
        with adapter:
            images = np.random.default_rng(0).integers(0, 256, (1, spec.input.height, spec.input.width, 3), np.uint8)
            return np.array([_timed(adapter, images) for _ in range(WARM_UP_RUNS + repeats)][WARM_UP_RUNS:])


def _spec(path: Path) -> ModelSpec:
    from mdpose_edge.datasets.keypoints import keypoint_set
    from mdpose_edge.datasets.layout import BOX_FORMAT
    from mdpose_edge.families.registry import training_spec
    from mdpose_edge.train.config import load_config

    config = load_config(path)
    has_boxes = config.data.format == BOX_FORMAT
    keypoints = NO_KEYPOINTS if has_boxes else keypoint_set(config.data.keypoints or "coco17")
    classes = config.data.classes or COCO_CLASSES
    return training_spec(config.family, config.network, config.input.spec(), keypoints, classes)


def _random_checkpoint(path: Path, out: Path) -> Path:
    torch = require("torch", extra="export", feature="exporting a checkpoint")
    from mdpose_edge.checkpoint import save_checkpoint
    from mdpose_edge.families.registry import training_of

    spec = _spec(path)
    torch.manual_seed(0)
    save_checkpoint(out, spec, training_of(spec.family).network(spec).state_dict())
    return out


def _calibrate(checkpoint: Path, folder: Path) -> Path:
    """Make a calibration set of a few drawn scenes."""
    from mdpose_edge.calib.make import make_calibration_set
    from mdpose_edge.runtimes.registry import read_model_spec
    from mdpose_edge.synth import write_dataset

    write_dataset(folder / "scenes", train_images=CALIBRATION_SCENES, val_images=0, size=(320, 240))
    make_calibration_set(
        folder / "scenes" / "train2017",
        folder / "calib",
        read_model_spec(checkpoint).input,
        num=CALIBRATION_SCENES,
        allow_few=True,
    )
    return folder / "calib"


def _timed(adapter: Any, images: Any) -> float:
    start = time.perf_counter()
    adapter.infer(images)
    return 1e3 * (time.perf_counter() - start)
