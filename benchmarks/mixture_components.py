"""The claim of mixture dense regression, in trend, on drawn people: two components against one and against L1.

    python -m benchmarks.mixture_components OUT [--only mdn_2] [--iterations 1250] [--list]

Each setting trains the same network from the same start on the same batches and differs in the regression alone: `l1`
is the mean distance of the labelled keypoints, weight 1 (CenterNet's, which the paper's base has); `mdn_M` is the
likelihood of M components, weight 0.1. Heat maps refine nothing. The paper has, with the hourglass on COCO val: AP 46.4
by L1, 52.3 by two components and by three, 37.3 and 37.7 by each of the two alone; of people 73 % go to one component,
seen from the front, and 27 % to the other, seen from behind.

Reported are AP, that of each component alone, and which component has the largest weight at the centre of annotated
people seen from the front and from behind: by the line of their shoulders and the depth of their nose. People of whom
these two disagree are seen from the side, and left out.

OUT/results.json holds every setting that is done, with the conditions; one that is there already is passed over, and a
run that was cut off goes on from its last checkpoint, so that a sweep can be stopped, resumed, and spread over
invocations. Other conditions need another OUT. By default a setting takes 20,000 visits, about a quarter of an hour of
one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mdpose_edge.checkpoint import load_network, read_checkpoint, save_checkpoint
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.datasets.readers import open_split
from mdpose_edge.evaluate import evaluate
from mdpose_edge.families.mixture_dense.heads import STRIDE
from mdpose_edge.families.mixture_dense.loss import at_cells
from mdpose_edge.families.mixture_dense.training import FAMILY
from mdpose_edge.preprocess import preprocess
from mdpose_edge.shipped import checkpoint_path
from mdpose_edge.spec import COCO_KEYPOINTS, ModelSpec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.config import TrainConfig, read_config
from mdpose_edge.train.data import training_batches
from mdpose_edge.train.optimizer import learning_rate, make_optimizer, optimizer_tensors, restore_optimizer
from mdpose_edge.train.predict import head_tensors
from mdpose_edge.train.start import take_over

START = "mdpose_edge/assets/dla34_synth_int8.safetensors"
"""The demo's start checkpoint, whose backbone knows drawn people."""
SETTINGS = {"l1": 1, "mdn_1": 1, "mdn_2": 2, "mdn_3": 3}
"""By name: how many components."""
PAPER_AP = {"l1": 46.4, "mdn_2": 52.3, "mdn_3": 52.3}
NOSE, LEFT_SHOULDER, RIGHT_SHOULDER = (
    COCO_KEYPOINTS.names.index(name) for name in ("nose", "left_shoulder", "right_shoulder")
)
SAVED_EVERY = 50
"""Iterations between checkpoints of a run under way."""
CERTAIN = 20.0
"""Logit of the one component that is to speak."""


@dataclass(frozen=True)
class Conditions:
    """What all settings share."""

    iterations: int
    size: int
    batch: int
    backbone: str
    channels: int
    lr: float
    seed: int
    train_images: int
    val_images: int
    people: tuple[int, int]
    init: str

    def config(self, setting: str) -> TrainConfig:
        """Return the configuration of a run."""
        return read_config(
            {
                "family": "mixture_dense",
                "input": {"height": self.size, "width": self.size},
                "network": {
                    "backbone": self.backbone,
                    "channels": self.channels,
                    "head_channels": self.channels,
                    "components": SETTINGS[setting],
                    "sigma_floor": 0.5,
                    "heatmaps": False,
                },
                "loss": {"pose_weight": 0.0 if setting == "l1" else 0.1},
                "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_min": 0.7, "crop_prob": 0.5},
                "optimizer": {"name": "adamw", "lr": self.lr, "weight_decay": 0.01, "clip_norm": 100.0},
                "schedule": {"iterations": self.iterations, "kind": "cosine", "warmup": self.iterations // 20},
                "batch_size": self.batch,
                "init": self.init,
                "init_only": "backbone.",
                "pretrained": False,
                "seed": self.seed,
                "workers": 0,
            },
            "mixture_components",
        )


def run_setting(setting: str, conditions: Conditions, data: Path, out: Path) -> dict[str, Any]:
    """Train a setting, evaluate it, and return its row."""
    model = out / f"{setting}.safetensors"
    seconds = train_setting(setting, conditions, data, out, model)
    threads = torch.get_num_threads()
    row: dict[str, Any] = {"train_s": round(seconds, 1), "AP": evaluate(model, data, "val", threads=threads).figures}
    alone = [evaluate(one_component(model, m, out), data, "val", threads=threads).figures["AP"]
             for m in range(SETTINGS[setting])]  # fmt: skip
    return {**row, "alone": alone, "people": people_of_components(model, data)}


def train_setting(setting: str, conditions: Conditions, data: Path, out: Path, model: Path) -> float:
    """Train, from the last checkpoint of a run that was cut off; return the seconds since, and leave the model."""
    config = conditions.config(setting)
    spec = FAMILY.make_spec(config.network, config.input.spec(), COCO_KEYPOINTS)
    torch.manual_seed(conditions.seed)
    network: nn.Module = FAMILY.network(spec)
    print(take_over(network, read_checkpoint(checkpoint_path(conditions.init)).weights, config), flush=True)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config.optimizer)
    unfinished, first = out / f"{setting}.last.safetensors", 0
    if unfinished.is_file():
        saved = read_checkpoint(unfinished)
        assert saved.progress is not None
        network.load_state_dict(saved.weights)
        restore_optimizer(optimizer, saved.state)
        first = int(str(saved.progress["iteration"]))
    start = time.perf_counter()
    with closing(training_batches(config, spec, data, "train")(first)) as batches:
        for iteration, batch in enumerate(batches, first):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(iteration, config.optimizer.lr, config.schedule)
            loss = batch_loss(network(batch.images), batch.targets, spec, config, l1=setting == "l1")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
            optimizer.step()
            if (iteration + 1) % SAVED_EVERY == 0:
                print(f"{setting} {iteration + 1}: loss {loss.item():.3f}", flush=True)
                progress = {"iteration": iteration + 1}
                state = optimizer_tensors(optimizer)
                save_checkpoint(unfinished, spec, network.state_dict(), state=state, progress=progress)
    save_checkpoint(model, spec, network.state_dict())
    unfinished.unlink(missing_ok=True)
    return time.perf_counter() - start


def batch_loss(
    outputs: Sequence[Mapping[str, Tensor]],
    targets: Mapping[str, Tensor],
    spec: ModelSpec,
    config: TrainConfig,
    *,
    l1: bool,
) -> Tensor:
    """Return the loss of a batch; with `l1`, the distance of keypoints is in it in the place of their likelihood."""
    found = FAMILY.loss(outputs, targets, spec, config.loss, torch.Generator())
    loss = torch.stack(list(found.parts.values())).sum() / max(1, FAMILY.count(targets))
    if not l1:
        return loss
    people = targets["person_mask"]
    mu = at_cells(outputs[-1]["mu_1"], targets["cell"])[people]
    seen = targets["labelled"][people]
    distance = (mu.view(len(mu), -1, 2) - targets["keypoints"][people]).abs()
    return loss + distance[seen].sum() / (2 * seen.sum()).clamp(min=1)


def one_component(model: Path, number: int, out: Path) -> Path:
    """Write a copy of a model in which one component, counted from 0, speaks for everybody; return its path."""
    network, spec = load_network(model)
    last: Any = network.branches[-1]["alpha"].last["alpha"]  # type: ignore[index,union-attr]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[number] = CERTAIN
    path = out / f"{model.stem}.alone{number + 1}.safetensors"
    save_checkpoint(path, spec, network.state_dict())
    return path


def people_of_components(model: Path, data: Path) -> dict[str, list[int]]:
    """Count, for people seen from the front and from behind, at whose centre which component has the largest weight."""
    network, spec = load_network(model)
    split = open_split(data, "val", "coco", spec.keypoints)
    document = json.loads(split.annotation_file.read_text())
    counts = {"front": [0] * spec.constants["components"], "back": [0] * spec.constants["components"]}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    rows, columns = spec.cells(STRIDE)
    for image in split.images:
        pixels, geometry = preprocess(read_annotated(image.path, image.wh)[0], spec.input)
        alpha = head_tensors(network.eval(), spec, torch.from_numpy(pixels)[None])["alpha"][0]
        for annotation in by_image.get(image.id, []):
            side = facing(np.array(annotation["keypoints_3d"]))
            x, y, width, height = annotation["bbox"]
            centre = geometry.to_network(np.array([[x + width / 2, y + height / 2]], np.float32))[0] / STRIDE
            column, row = np.clip(centre.astype(int), 0, (columns - 1, rows - 1))
            if side is not None:
                counts[side][int(alpha[:, row, column].argmax())] += 1
    return counts


def facing(joints: NDArray[np.floating]) -> str | None:
    """Say how somebody is seen: "front", "back", or None from the side.

    Args:
        joints: (17, 3) m in the camera's axes: x right, y down, z forward.
    """
    left, right, nose = joints[LEFT_SHOULDER], joints[RIGHT_SHOULDER], joints[NOSE]
    shoulders_front, nose_front = bool(left[0] > right[0]), bool(nose[2] < (left[2] + right[2]) / 2)
    if shoulders_front != nose_front:
        return None
    return "front" if nose_front else "back"


def findings(rows: Mapping[str, Any]) -> list[str]:
    """Hold what was measured against what the paper found."""
    lines = []
    ranked = sorted(rows, key=lambda name: -(rows[name]["AP"]["AP"] or 0.0))
    lines.append("by AP: " + " > ".join(f"{name} {100 * (rows[name]['AP']['AP'] or 0.0):.1f}" for name in ranked))
    paper = [name for name in sorted(PAPER_AP, key=lambda name: -PAPER_AP[name]) if name in rows]
    lines.append("the paper: " + " > ".join(f"{name} {PAPER_AP[name]}" for name in paper))
    for name in ranked:
        row = rows[name]
        if len(row["alone"]) == 1:
            continue
        alone = ", ".join(f"{100 * (ap or 0.0):.1f}" for ap in row["alone"])
        lines.append(f"{name}: AP of each component alone {alone}")
        for side, counts in row["people"].items():
            shares = ", ".join(f"{100 * count / max(1, sum(counts)):.0f} %" for count in counts)
            lines.append(f"{name}: of {sum(counts)} people seen from the {side}, the components speak for {shares}")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, or some settings; print all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=SETTINGS, action="append")
    parser.add_argument("--list", action="store_true", help="print the settings' names and end")
    parser.add_argument("--iterations", type=int, default=1250)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="dla34")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--val-images", type=int, default=300)
    parser.add_argument("--people", type=int, nargs=2, default=(1, 2))
    parser.add_argument("--init", default=START, help="a checkpoint whose backbone is taken")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(SETTINGS))
        return
    fields = {name: getattr(args, name) for name in Conditions.__dataclass_fields__}
    conditions = Conditions(**{**fields, "people": tuple(args.people)})
    results = _open_results(args.out / "results.json", conditions, parser)
    data = args.out / "data"
    if not data.exists():
        counts = {"train_images": args.train_images, "val_images": args.val_images}
        write_dataset(data, **counts, size=args.size, people=conditions.people, occlusion=0.0)
    for setting in SETTINGS:
        if setting not in results["settings"] and (not args.only or setting in args.only):
            results["settings"][setting] = run_setting(setting, conditions, data, args.out)
            write_whole(args.out / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    print("\n".join(findings(results["settings"])))


def _open_results(path: Path, conditions: Conditions, parser: argparse.ArgumentParser) -> dict[str, Any]:
    stated = json.loads(json.dumps(asdict(conditions)))
    if not path.is_file():
        return {"conditions": stated, "settings": {}}
    results: dict[str, Any] = json.loads(path.read_text())
    if results["conditions"] != stated:
        parser.error(f"{path} was made under other conditions, {results['conditions']}: repeat them, or choose another")
    return results


if __name__ == "__main__":
    main()
