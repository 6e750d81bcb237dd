"""Train single-stage 3-D pose in the paper's five ways and measure each: where cells are, the update, the likelihood.

    python -m benchmarks.das_ablation DRAWN OUT [--iterations 1000] [--set KEY=VALUE ...] [--json FILE]

The ways are "box" (cells by the middle of the box, distances alone), "root", "root, update", "root, likelihood" and
"root, update, likelihood" (Wang et al., CVPR 2022, table 1a). All else is configs/das_synth_128.yaml. Runs that are
finished are kept, and one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdpose_edge.common.files import write_whole
from mdpose_edge.evaluate import evaluate
from mdpose_edge.train.config import TrainConfig, load_config
from mdpose_edge.train.loop import train

CONFIG = Path("configs/das_synth_128.yaml")
WAYS: dict[str, tuple[str, ...]] = {
    "box": ("loss.center=box", "loss.likelihood=l1", "network.updates=0"),
    "root": ("loss.center=root", "loss.likelihood=l1", "network.updates=0"),
    "root, update": ("loss.center=root", "loss.likelihood=l1", "network.updates=1"),
    "root, likelihood": ("loss.center=root", "loss.likelihood=flow", "network.updates=0"),
    "root, update, likelihood": ("loss.center=root", "loss.likelihood=flow", "network.updates=1"),
}
SHOWN = ("MPJPE_mm", "recall", "PCK_rel", "PCK_abs", "root_depth_share")


def config_of(way: str, iterations: int, changes: Sequence[str]) -> TrainConfig:
    """Return the configuration of a way."""
    return load_config(CONFIG, [*WAYS[way], f"schedule.iterations={iterations}", *changes])


def run(way: str, data: Path, out: Path, iterations: int, changes: Sequence[str]) -> dict[str, Any]:
    """Train a way, unless it is trained, and measure it on the held-out pictures and their cameras."""
    folder = out / way.replace(", ", "-")
    model = folder / "model.safetensors"
    if not model.is_file():
        model = train(config_of(way, iterations, changes), data, folder, resume="auto")
    found = evaluate(model, data, threads=1)
    assert found.solid is not None
    return {"AP": found.figures["AP"], **found.solid}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure all ways, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    found = {}
    print(f"{'':26}", *(f"{name:>17}" for name in SHOWN))
    for way in args.ways:
        found[way] = run(way, args.data, args.out, args.iterations, args.changes)
        values = (found[way][name] for name in SHOWN)
        print(f"{way:26}", *(f"{'-':>17}" if value is None else f"{value:17.4f}" for value in values), flush=True)
        if args.json:
            write_whole(args.json, (json.dumps(found, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
