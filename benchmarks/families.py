"""The families side by side: equal visits of the same drawn people, INT8 by the gate, latency beside MDPose's.

    python benchmarks/families.py runs/families [--visits N] [--only adaptive ...] [--json FILE]

Each configs/*_synth_128.yaml trains DLA-34 from the demo trunk, is exported for OpenVINO in fp32 and INT8, measured by
COCO's protocol on the same pictures, and timed in turns with MDPose's INT8. It goes on where it was stopped: training
from its last checkpoint, and what is done is not done again. About a quarter of an hour a family on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdpose_edge.common.files import write_whole
from mdpose_edge.demo import START_CHECKPOINT
from mdpose_edge.train.config import load_config

CONFIGS = {
    "mdpose": "dla34_synth_128",
    "mixture_dense": "mixture_dense_synth_128",
    "adaptive": "adaptive_synth_128",
    "das": "das_synth_128",
    "recurrent": "recurrent_synth_128",
}
"""By family; the first is what the others are timed beside."""
FOLDER = Path(__file__).parent.parent / "configs"
FIGURES = ("AP", "AP50", "AP75")


def command(*words: object, fine: Sequence[int] = (0,)) -> int:
    """Run mdpose-edge; an exit code that is not fine ends the benchmark."""
    done = subprocess.run([sys.executable, "-m", "mdpose_edge", *map(str, words)])
    if done.returncode not in fine:
        sys.exit(done.returncode)
    return done.returncode


def draw(data: Path, train_images: int, val_images: int) -> None:
    """Draw the people that all families see."""
    if not data.exists():
        words = ["--images", train_images + val_images, "--val-images", val_images, "--size", 160, "--people", "1-4"]
        command("synth", "images", data, *words, "--occlusion", 0.3, "--variety", 0.5, "--seed", 21, "--workers", 2)


def train(family: str, data: Path, out: Path, visits: int) -> Path:
    """Train a family, or go on with it; return the model."""
    model = out / "run" / "model.safetensors"
    if not model.exists():
        config = FOLDER / f"{CONFIGS[family]}.yaml"
        iterations = visits // load_config(config).batch_size
        settings = [f"schedule.iterations={iterations}", f"init={START_CHECKPOINT}", "init_only=backbone."]
        words = [word for setting in settings for word in ("--set", setting)]
        command("train", config, "--data", data, "--out", out / "run", "--resume", "auto", *words)
    return model


def export(model: Path, data: Path, out: Path) -> bool:
    """Export a model in fp32 and INT8, evaluate both, and return whether the gate held."""
    if not (out / "fp32").exists():
        command("export", model, "--target", "openvino", "--precision", "fp32", "--out", out / "fp32")
    if not (out / "calib").exists():
        words = [
            "--data",
            data,
            "--split",
            "train",
            "--like",
            model,
            "--num",
            min(128, len(list((data / "train2017").iterdir()))),
        ]
        command("calib", "make", *words, "--out", out / "calib", "--allow-few")
    if not (out / "int8").exists():
        words = ["--target", "openvino", "--precision", "int8", "--calib", out / "calib", "--allow-few"]
        command("export", model, *words, "--out", out / "int8")
    for precision in ("fp32", "int8"):
        if not (out / f"{precision}.json").exists():
            command("eval", out / precision, "--data", data, "--json", out / f"{precision}.json")
    words = ["--reference", out / "fp32", "--data", data, "--json", out / "check.json", "--force"]
    return command("check", out / "int8", *words, fine=(0, 1)) == 0


def record(out: Path, first: Path, held: bool) -> dict[str, Any]:
    """Time a family's INT8 in turns with the first's, and put its figures together."""
    words = ["--against", first] if out / "int8" != first else []
    plan = ["--size", "320x320", "--people", 4, "--threads", 1, "--frames", 200, "--no-startup"]
    command("bench", out / "int8", *words, *plan, "--json", out / "bench.json", "--force")
    evaluated = {name: json.loads((out / f"{name}.json").read_text()) for name in ("fp32", "int8")}
    found: dict[str, Any] = {
        f"{name} {key}": document["figures"][key] for name, document in evaluated.items() for key in FIGURES
    }
    bench = json.loads((out / "bench.json").read_text())
    return {
        **found,
        "gate": "held" if held else "fell",
        "stages_ms": bench["runs"][0]["stages_ms"],
        "ratios": bench["ratios"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, export, measure, print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--visits", type=int, default=20_000, help="pictures that each family is shown")
    parser.add_argument("--train-images", type=int, default=6000)
    parser.add_argument("--val-images", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="families, after the first")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(argv)
    data = given.out / "data"
    draw(data, given.train_images, given.val_images)
    first = next(iter(CONFIGS))
    figures = {}
    for family in dict.fromkeys((first, *given.only)):
        out = given.out / family
        held = export(train(family, data, out, given.visits), data, out)
        figures[family] = record(out, given.out / first / "int8", held)
        print(family, {key: value for key, value in figures[family].items() if key != "stages_ms"}, flush=True)
    if given.json is not None:
        write_whole(given.json, (json.dumps({"visits": given.visits, "families": figures}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
