"""The ablation of adaptive keypoints, on drawn people: guidance, trade-off loss, adaptive convolutions, scoring net.

    python -m benchmarks.adaptive DATA OUT [--iterations 1250] [--only guidance] [--size 128]

Each stage adds one thing to the stage before; all train the journal article's network from the same start on the same
views. DATA is a folder in COCO's layout, such as `mdpose-edge synth` writes; a stage takes a quarter of an hour of
two cores. OUT/results.json holds what is done: a stage that is there is passed over, and one that was stopped goes on
from its last checkpoint. Three columns of AP, as the paper's: `regression`, what the offsets alone say; `heat`, peaks
grouped by the annotated poses, which bounds what grouping can reach; `final`, peaks grouped by the offsets.

The paper has, with HRNet-W32 on COCO: base 59.6 71.3 64.5, guidance 60.5 71.8 64.9, trade-off 61.5 73.2 66.2, adaptive
65.1 73.3 67.2, scoring 67.8. Minutes on drawn people show directions, not these figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mdpose_edge.checkpoint import load_network, read_checkpoint
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.coco import CocoSplit, load_split, results_of
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.evaluate import coco_figures
from mdpose_edge.families.adaptive.decode import EVALUATION, AdaptiveDecoder
from mdpose_edge.families.adaptive.heads import STRIDE
from mdpose_edge.families.base import Heads
from mdpose_edge.poses import Poses
from mdpose_edge.preprocess import FrameGeometry, preprocess
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.config import TrainConfig, load_config, read_config
from mdpose_edge.train.loop import train
from mdpose_edge.train.predict import head_tensors

CONFIG = Path(__file__).parents[1] / "configs" / "adaptive_synth_128.yaml"
START = Path(__file__).parents[1] / "mdpose_edge" / "assets" / "dla34_synth_int8.safetensors"
STAGES: dict[str, dict[str, dict[str, Any]]] = {
    "base": {"network": {"guidance": False, "adaptive": "none"}, "loss": {"background": 1.0}},
    "guidance": {"network": {"guidance": True, "adaptive": "none"}, "loss": {"background": 1.0}},
    "tradeoff": {"network": {"guidance": True, "adaptive": "none"}, "loss": {"background": 0.1}},
    "adaptive": {"network": {"guidance": True, "adaptive": "sample"}, "loss": {"background": 0.1}},
}
"""The scoring net is trained after the last one, which is measured with it and without."""
NOWHERE = -1e4
"""px: of a keypoint that was not found."""
COLUMNS = ("regression", "heat", "final", "scored")


def config_of(stage: str, iterations: int, size: int) -> TrainConfig:
    """Return the configuration of a stage."""
    base = load_config(CONFIG)
    changes = STAGES[stage]
    values = base.to_dict()
    values["network"] |= {"structure": "guided", "pose_channels": 64, **changes["network"]}
    values["loss"] |= changes["loss"]
    values["input"] |= {"height": size, "width": size}
    values["schedule"] |= {"iterations": iterations, "warmup": min(100, iterations // 10)}
    values |= {"init": str(START), "init_only": "backbone.", "checkpoint_every": 100}
    return read_config(values, stage)


def measure(model: Path, data: CocoSplit) -> dict[str, float | None]:
    """Return the AP of a model in each of COLUMNS."""
    network, spec = load_network(model)
    network.eval()
    side = {k: {n: t.numpy() for n, t in v.items()} for k, v in read_checkpoint(model).side.items()}
    bare = {**spec.constants, "scorer": None}
    specs = {
        "regression": replace(spec, constants={**bare, "reach": 0.0}),
        "final": replace(spec, constants=bare),
        "scored": spec,
    }
    decoders = {name: AdaptiveDecoder(one, EVALUATION, side) for name, one in specs.items()}
    nearest = AdaptiveDecoder(replace(spec, constants={**bare, "reach": 10.0, "reach_of_pose": 10.0}), EVALUATION)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for row, image in enumerate(data.images):
        pixels, geometry = preprocess(read_annotated(image.path, image.wh)[0], spec.input)
        heads = head_tensors(network, spec, torch.from_numpy(pixels)[None])
        for name, decoder in decoders.items():
            found[name] += results_of(image.id, decoder(heads, geometry), data.result_ids)
        told = _annotated(heads, data, row, spec, geometry)
        found["heat"] += results_of(image.id, _grouped_by_truth(nearest, told, geometry), data.result_ids)
    return {name: coco_figures(data, found[name], sigmas=spec.keypoints.sigmas)["AP"] for name in COLUMNS}


def _grouped_by_truth(decoder: AdaptiveDecoder, told: Heads, geometry: FrameGeometry) -> Poses:
    """Return the peaks nearest to the annotated keypoints; where a map has none, the keypoint is nowhere."""
    people = decoder.group(told)
    points = np.where(people.absorbed[..., None], people.keypoints_xy, np.float32(NOWHERE))
    heat = np.where(people.absorbed, people.heat, np.float32(0.0)).mean(axis=1)
    return Poses(geometry.to_frame(points), heat, np.ones_like(points))


def _annotated(heads: Heads, data: CocoSplit, row: int, spec: ModelSpec, geometry: FrameGeometry) -> Heads:
    """Return the head tensors with centres and offsets as they are annotated."""
    persons = data.persons(row)
    rows, columns = spec.cells(STRIDE)
    centre, offset = np.zeros_like(heads["centre"]), np.zeros_like(heads["offset"])
    for keypoints in persons.keypoints[persons.num_keypoints > 0]:
        points = geometry.to_network(keypoints[:, :2]) / STRIDE
        labelled = keypoints[:, 2] > 0
        middle = points[labelled].mean(axis=0)
        points = np.where(labelled[:, None], points, middle)
        column, line = _free_cell(centre[0, 0], middle, (columns, rows))
        centre[0, 0, line, column] = 1.0
        offset[0, :, line, column] = (points - (column + 0.5, line + 0.5)).ravel()
    return {"heat": heads["heat"], "centre": centre, "offset": offset}


def _free_cell(centre: NDArray[np.float32], middle: NDArray[np.float32], wh: tuple[int, int]) -> tuple[int, int]:
    """Return the cell nearest to a person's middle that touches nobody else's: peaks have to be apart."""
    y, x = np.indices(centre.shape)
    taken = np.zeros(centre.shape, np.bool_)
    for line, column in np.argwhere(centre > 0):
        taken |= (abs(y - line) <= 1) & (abs(x - column) <= 1)
    distance = np.where(taken, np.inf, (x + 0.5 - middle[0]) ** 2 + (y + 0.5 - middle[1]) ** 2)
    line, column = divmod(int(distance.argmin()), wh[0])
    return column, line


def print_table(results: dict[str, dict[str, float | None]]) -> None:
    """Print AP in percent, a stage a line."""
    print(f"{'stage':10}" + "".join(f"{name:>12}" for name in COLUMNS))
    for stage, figures in results.items():
        cells = (figures[name] for name in COLUMNS)
        print(f"{stage:10}" + "".join(f"{'' if ap is None else f'{100 * ap:.1f}':>12}" for ap in cells))


def main(argv: Sequence[str] | None = None) -> None:
    """Train and measure every stage that is not done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--iterations", type=int, default=1250)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--only", action="append", choices=tuple(STAGES))
    args = parser.parse_args(argv)
    file, conditions = args.out / "results.json", {"iterations": args.iterations, "size": args.size}
    done = json.loads(file.read_text()) if file.is_file() else {"conditions": conditions, "stages": {}}
    if done["conditions"] != conditions:
        parser.error(f"expected the conditions of {file}, {done['conditions']}: give those, or another OUT")
    for stage in args.only or STAGES:
        if stage in done["stages"]:
            continue
        model = args.out / stage / "model.safetensors"
        if not model.is_file():
            train(config_of(stage, args.iterations, args.size), args.data, args.out / stage, resume="auto", note=print)
        done["stages"][stage] = measure(model, load_split(args.data, "val"))
        write_whole(file, (json.dumps(done, indent=2) + "\n").encode())
    print_table(done["stages"])


if __name__ == "__main__":
    main()
