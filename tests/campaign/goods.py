"""The good inputs that the campaign damages, and the commands that read them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from mdpose_edge import cli
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train.config import DataConfig, ScheduleConfig
from tests.artifacts import Artifacts
from tests.campaign.child import fork
from tests.unit import tiny_coco
from tests.unit.stream.media import write_video
from tests.unit.train.crude_people import tiny_config

IMAGES = 3


@dataclass(frozen=True)
class Command:
    """A command that ends in 0 on good inputs; every path is relative to the folder in which it runs.

    Args:
        words: the command line; "--name=value" where a value is to be mistyped.
        reads: files and folders of the good inputs.
        keeps: globs of what may be there after a failure too: what a run had finished, as documented.
        limit_s: longer is a hang.
    """

    words: tuple[str, ...]
    reads: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    limit_s: float = 30.0


def _command(words: str, reads: str = "", keeps: str = "") -> Command:
    return Command(tuple(words.split()), tuple(reads.split()), tuple(keeps.split()))


_STREAM = "--jsonl=out/r.jsonl --json=out/r.json --threads=1 --threshold=0.1"
COMMANDS = {
    "infer pictures": _command(
        "infer model pictures --coco=out/r.json --csv=out/r.csv --threads=1 --threshold=0.1", "model pictures", "out/*"
    ),
    "infer painted": _command("infer model pictures --out=out/painted --threads=1", "model pictures", "out/*"),
    "infer avi": _command(f"infer model video.avi {_STREAM}", "model video.avi", "out/*"),
    "infer mp4": _command(f"infer model video.mp4 --out=out/painted.mp4 --track {_STREAM}", "model video.mp4", "out/*"),
    "view": _command("view model video.avi --port=0 --json=out/view.json --threads=1", "model video.avi"),
    "eval": _command("eval model --data=data --results=out/r.json --json=out/ap.json --threads=1", "model data"),
    "check": _command(
        "check model --reference=record.npz --json=out/check.json --report=out/page --threads=1", "model record.npz"
    ),
    "data check": _command("data check data --out=out/sheet.png --json=out/faults.json", "data"),
    "calib make": _command("calib make --data=pictures --out=out/set --like=model --allow-few", "model pictures"),
    "calib make split": _command(
        "calib make --data=data --split=val --out=out/set --height=64 --width=64 --num=2 --allow-few", "data"
    ),
    "calib show": _command("calib show calib --out=out/sheet.png --json=out/calib.json", "calib"),
    "train": _command(
        "train config.yaml --data=data --out=out/run --set=workers=0 --set=log_every=1",
        "config.yaml data",
        "out/run out/run/*",
    ),
    "export": _command("export model.safetensors --out=out/bundle --target=onnx", "model.safetensors"),
    "export int8": _command(
        "export model.safetensors --out=out/bundle --target=onnx --precision=int8 --calib=calib --allow-few",
        "model.safetensors calib",
    ),
    "build": _command("build engine --show-trtexec --workspace=64", "engine"),
    "triton": _command("triton model --out=out/repository --max-batch=4", "model"),
    "nvdla": _command("nvdla model --precision=fp16 --json=out/nvdla.json", "model"),
    "bench": _command(
        "bench model --source=video.avi --threads=1 --frames=20 --warmup=1 --no-startup --json=out/bench.json",
        "model video.avi",
    ),
    "models": _command("models config.yaml --json=out/models.json", "config.yaml"),
    "synth images": _command("synth images out/drawn --images=2 --size=64 --people=1 --workers=1"),
    "synth video": _command("synth video out/drawn --seconds=0.1 --fps=20 --size=64x64 --people=1 --seed=3"),
    "doctor": Command(("doctor", "--json=out/doctor.json"), limit_s=180.0),  # each engine in a new process
}


def new_goods(work: Path) -> Path:
    """Write every good input into a new folder, in a child, so that no engine is ever open here; return the folder."""
    folder = work / "goods"
    folder.mkdir(parents=True)
    made = fork(lambda: _make_goods(folder) or 0, work / "making")
    if made.code != 0:
        raise SystemExit(f"the good inputs could not be made: {made.err}")
    return folder


def _make_goods(folder: Path) -> None:
    made = Artifacts(_new(folder / "made"))
    made.checkpoint().rename(folder / "model.safetensors")
    (folder / "made" / "batch1.safetensors").symlink_to(folder / "model.safetensors")
    made.bundle("onnx").rename(folder / "model")
    made.bundle("tensorrt").rename(folder / "engine")
    made.calibration().rename(folder / "calib")
    rng = np.random.default_rng(0)
    _new(folder / "pictures")
    for name in ("1.jpg", "2.png", "3.bmp"):
        assert cv2.imwrite(str(folder / "pictures" / name), rng.integers(0, 256, (48, 64, 3), np.uint8))
    write_video(folder / "video.avi", 6)
    writer = cv2.VideoWriter(str(folder / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 64))
    for _ in range(6):
        writer.write(rng.integers(0, 256, (64, 96, 3), np.uint8))
    writer.release()
    _write_data(folder / "data")
    config = tiny_config(
        network=NetworkConfig(backbone="test_resnet", channels=16, head_convs=2),
        schedule=ScheduleConfig(iterations=2, kind="cosine"),
        batch_size=2,
        data=DataConfig(),
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    record = ["check", folder / "model", "--data", folder / "pictures", "--record", folder / "record.npz"]
    sys.argv = ["mdpose-edge", *map(str, record)]
    cli.main()


def _write_data(folder: Path) -> None:
    ids = list(range(1, IMAGES + 1))
    people = [tiny_coco.person(i, x=x, side=90) for i in ids for x in (20, 180)]
    for split in ("train", "val"):
        tiny_coco.write_split(folder, tiny_coco.document(people, ids), split)


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
