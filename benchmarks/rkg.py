"""The paper's ablation of random keypoint grouping, on drawn people: size of groups, random or fixed, log space or not.

    python benchmarks/rkg.py OUT [--only log-3-random] [--iterations 1400] [--list]
    python benchmarks/rkg.py OUT --start MODEL --size 192 --people 6 8 --only log-18-random --only product-18-random
    python benchmarks/rkg.py OUT --trained MODEL --size 320 --people 6 8 --train-images 96 --val-images 0

Each setting trains the same network from the same seed on the same batches and differs in the loss alone:

`log` is the package's GroupNLL, in log space; `product` multiplies densities in float32 and adds 1e-12 to each of them
and to the mixture, as the paper's public code does; `bare` multiplies them and adds nothing, as the formula has it. K_g
is the size of a group of the 18 keypoints (17 and the box centre); `random` groups are drawn anew at every iteration,
`fixed` ones once.

OUT/results.json holds every setting that is done, with the conditions; a setting that is there already is passed over,
so that a sweep can be stopped, resumed, and spread over invocations. Other conditions need another OUT. At the end a
table and a few sentences are printed of all that is there, and OUT/rkg.png shows AP and underflow by K_g.

The paper has, at 320 px on COCO: AP 47.7, 51.2, 51.5, 51.0, 49.8, NaN at K_g 1, 2, 3, 6, 9, 18, and 39.5 with fixed
groups. Minutes on one core show directions, not these figures. By default a setting takes about four minutes of one
core: 0.15 s of processor time an iteration for the network. `--backbone dla34` takes 0.7 s. So short a training from
nothing stays far from where products leave float32: `--start` goes on from a checkpoint that has come further.

`--trained` trains nothing: it shows a model pictures and counts, for each K_g, which likelihoods leave float32, and in
how many pictures a loss or its gradient is not finite. One of these ends a run.
"""

from __future__ import annotations

import argparse
import json
import math
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
from mdpose_edge.datasets.images import write_image
from mdpose_edge.evaluate import evaluate
from mdpose_edge.families.mdpose.heads import constants_of
from mdpose_edge.families.mdpose.loss import KeypointGroups, Mixture, group_keypoints, group_nll, mixture_from_heads
from mdpose_edge.families.mdpose.network import MDPoseNetwork, make_spec
from mdpose_edge.spec import ModelSpec
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.config import TrainConfig, read_config
from mdpose_edge.train.curves import Panel, draw_panels
from mdpose_edge.train.data import Batch, training_batches
from mdpose_edge.train.optimizer import learning_rate, make_optimizer

PAPER_AP = {1: 47.7, 2: 51.2, 3: 51.5, 6: 51.0, 9: 49.8}
"""By K_g, random groups, 320 px, COCO val (Seo et al., UAI 2023, Table 1); NaN at 18, and 39.5 with fixed groups."""
EPSILONS = {"product": 1e-12, "bare": 0.0}
"""What a naive loss adds to densities and likelihoods."""
SWAMPED_BELOW = EPSILONS["product"]
SHARES = ("components", "persons", "swamped", "overflow")
GROUP_SIZES = (1, 2, 3, 6, 9, 18)
PLOTTED = ("log-K-random", "product-K-random", "log-K-fixed")
MARKS = 10
"""How often in a run the underflow is measured."""
LEARNT_AP50 = 0.05
"""Below this AP50 a setting counts as one that did not learn."""


@dataclass(frozen=True)
class Setting:
    """One row of the ablation."""

    loss: str
    group_size: int
    grouping: str

    @property
    def name(self) -> str:
        """Give what --only takes."""
        return f"{self.loss}-{self.group_size}-{self.grouping}"


SETTINGS = (
    *(Setting("log", size, "random") for size in GROUP_SIZES),
    *(Setting("log", size, "fixed") for size in (2, 3, 6, 9)),
    *(Setting("product", size, "random") for size in GROUP_SIZES),
    Setting("product", 3, "fixed"),
    *(Setting("bare", size, "random") for size in (3, 18)),
)
"""Groups of 1 and of 18 are the same whether they are drawn once or anew."""


@dataclass(frozen=True)
class Conditions:
    """What all settings share."""

    iterations: int
    size: int
    batch: int
    backbone: str
    channels: int
    head_convs: int
    lr: float
    seed: int
    train_images: int
    val_images: int
    people: tuple[int, int]
    start: str | None
    """A checkpoint to go on from; the network is then its own, whatever backbone, channels and head_convs say."""

    def network(self, config: TrainConfig) -> tuple[nn.Module, ModelSpec]:
        """Make the network of a run, the same each time."""
        if self.start is not None:
            return load_network(Path(self.start))
        spec = make_spec(config.network, config.input.spec())
        torch.manual_seed(self.seed)
        return MDPoseNetwork(spec, auxiliary_center=True), spec

    def config(self) -> TrainConfig:
        """Give the configuration of a run."""
        return read_config(
            {
                "input": {"height": self.size, "width": self.size},
                "network": {"backbone": self.backbone, "channels": self.channels, "head_convs": self.head_convs},
                "augment": {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0, "flip_prob": 0.5},
                "optimizer": {"name": "adamw", "lr": self.lr, "weight_decay": 0.01},
                "schedule": {"iterations": self.iterations, "kind": "cosine", "warmup": self.iterations // 20},
                "batch_size": self.batch,
                "pretrained": False,
                "seed": self.seed,
                "workers": 0,
            },
            "rkg",
        )


def people(targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the losses take of a batch: keypoints, which of them are labelled, and who is no padding."""
    return targets["keypoints_xy"], targets["labelled"], targets["person_mask"]


def product_nll(
    mixture: Mixture, targets: Mapping[str, Tensor], groups: KeypointGroups, epsilon: float
) -> tuple[Tensor, dict[str, float]]:
    """Compute the loss from products of densities, and how many of them leave float32.

    Returns:
        The mean over persons, and four shares: "components", of (person, group, component) whose product is 0;
        "persons", of (person, group) where it is 0 in every component; "swamped", of (person, group) whose likelihood
        is below 1e-12, so that it hardly moves the loss of `product`; "overflow", of (person, group) whose likelihood
        is beyond float32. All are of the plain product, whatever the epsilon.
    """
    losses, zero_products, zero_sums, swamped, overflow = [], [], [], [], []
    for image, mask in enumerate(targets["person_mask"]):
        if not mask.any():
            continue
        seen = targets["labelled"][image, mask].repeat_interleave(2, dim=1)[..., None]
        target = torch.where(seen, targets["keypoints_xy"][image, mask].flatten(1)[..., None], 0.0)
        mu, gamma = mixture.mu[image], mixture.gamma[image]
        density = torch.where(seen, torch.exp(-(target - mu).abs() / gamma) / (2 * gamma), 1.0)
        channels = [[2 * keypoint + axis for keypoint in group for axis in (0, 1)] for group in groups]
        parts = torch.stack([(density[:, group] + epsilon).prod(dim=1) for group in channels], dim=1)
        likelihood = (parts * mixture.log_pi[image].exp()).sum(dim=2)
        losses.append(-(likelihood + epsilon).log().mean(dim=1))
        with torch.no_grad():
            plain = torch.stack([density[:, group].prod(dim=1) for group in channels], dim=1)
            sums = (plain * mixture.log_pi[image].exp()).sum(dim=2)
        zero_products.append((plain == 0).float().mean(dim=2).flatten())
        zero_sums.append((plain == 0).all(dim=2).float().flatten())
        swamped.append((sums < SWAMPED_BELOW).float().flatten())
        overflow.append((~sums.isfinite()).float().flatten())
    if not losses:
        return mixture.mu.sum() * 0.0, dict.fromkeys(SHARES, math.nan)
    parts = (zero_products, zero_sums, swamped, overflow)
    return torch.cat(losses).mean(), {
        key: torch.cat(part).mean().item() for key, part in zip(SHARES, parts, strict=True)
    }


def run_setting(setting: Setting, conditions: Conditions, data: Path, out: Path) -> dict[str, Any]:
    """Train a setting, evaluate it, and give its row."""
    config = conditions.config()
    network, spec = conditions.network(config)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(network, config.optimizer)
    marks: list[dict[str, float]] = []
    stopped, loss_value, start = None, math.nan, time.perf_counter()
    every = max(1, conditions.iterations // MARKS)
    with closing(training_batches(config, spec, data, "train")(0)) as batches:
        for iteration, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(iteration, config.optimizer.lr, config.schedule)
            measure = iteration % every == 0 or iteration == conditions.iterations - 1
            loss, shares = _loss(setting, network, spec, batch, iteration, measure)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
            loss_value = loss.item()
            lost = not (math.isfinite(loss_value) and math.isfinite(norm.item()))
            if measure or lost:
                marks.append({"iteration": iteration, "loss": loss_value, "gradient_norm": norm.item(), **shares})
                print(f"{setting.name} {iteration}: loss {loss_value:.3f}, gradient {norm.item():.3g}", flush=True)
            if lost:
                stopped = iteration
                break
            optimizer.step()
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {**asdict(setting), "nan_at": stopped, "marks": marks, "train_s": round(seconds, 1)}
    if stopped is not None:
        return {**row, "figures": None}
    model = out / f"{setting.name}.safetensors"
    save_checkpoint(model, spec, network.state_dict())
    return {**row, "figures": evaluate(model, data, "val", threads=torch.get_num_threads()).figures}


def _loss(
    setting: Setting, network: nn.Module, spec: ModelSpec, batch: Batch, iteration: int, measure: bool
) -> tuple[Tensor, dict[str, float]]:
    mixture = _mixture(network, spec, batch)
    drawn_at = iteration if setting.grouping == "random" else 0
    joints = batch.targets["keypoints_xy"].shape[2]
    groups = group_keypoints(joints, setting.group_size, torch.Generator().manual_seed(drawn_at))
    if setting.loss in EPSILONS:
        return product_nll(mixture, batch.targets, groups, EPSILONS[setting.loss])
    shares: dict[str, float] = {}
    if measure:
        with torch.no_grad():
            _, shares = product_nll(mixture, batch.targets, groups, 0.0)
    _, loss = group_nll(mixture, *people(batch.targets), groups)
    return loss, shares


def _mixture(network: nn.Module, spec: ModelSpec, batch: Batch) -> Mixture:
    joints, constants = len(spec.keypoints.names), constants_of(spec)
    levels, extent = constants.levels, constants.coordinate_extent
    return mixture_from_heads(network(batch.images), levels, num_keypoints=joints, extent=extent)


def print_range(model: Path, data: Path, images: int) -> None:
    """Print how many of a trained model's likelihoods leave float32, and how many pictures that costs each loss."""
    network, spec = load_network(model)
    network.requires_grad_(False)
    still = {"rotation_prob": 0.0, "expand_prob": 0.0, "crop_prob": 0.0, "flip_prob": 0.0}
    options: dict[str, Any] = {"input": {"height": spec.input.height, "width": spec.input.width}, "augment": still}
    config = read_config(options | {"schedule": {"iterations": images}, "batch_size": 1, "workers": 0}, "rkg")
    counts = {size: dict.fromkeys(("groups", "zero", "beyond", *EPSILONS, "log"), 0) for size in GROUP_SIZES}
    with closing(training_batches(config, spec, data, "train")(0)) as batches:
        for iteration, batch in enumerate(batches):
            mixture = _mixture(network, spec, batch)
            leaves = [mixture.mu.requires_grad_(), mixture.gamma.requires_grad_()]
            for size, count in counts.items():
                groups = group_keypoints(
                    batch.targets["keypoints_xy"].shape[2], size, torch.Generator().manual_seed(iteration)
                )
                _, exact = group_nll(mixture, *people(batch.targets), groups)
                losses, shares = {"log": exact}, dict[str, float]()
                for name, epsilon in EPSILONS.items():
                    losses[name], shares = product_nll(mixture, batch.targets, groups, epsilon)
                for name, loss in losses.items():
                    parts = (loss, *torch.autograd.grad(loss, leaves))
                    count[name] += not all(part.isfinite().all() for part in parts)
                terms = int(batch.targets["person_mask"].sum()) * len(groups)
                count["groups"] += terms
                count["zero"] += round(shares["persons"] * terms)
                count["beyond"] += round(shares["overflow"] * terms)
    print(f"{images} pictures; by loss, those where it or its gradient is not finite:")
    print(f"{'K_g':>3} {'likelihoods':>12} {'0':>6} {'beyond float32':>15} {'bare':>6} {'product':>8} {'log':>6}")
    for size, count in counts.items():
        likelihoods = f"{count['groups']:12} {count['zero']:6} {count['beyond']:15}"
        print(f"{size:3} {likelihoods} {count['bare']:6} {count['product']:8} {count['log']:6}")


def outcome(row: dict[str, Any]) -> str:
    """Say in a few words how a setting ended."""
    if row["figures"] is None:
        reasons = {"persons": "likelihoods of 0", "overflow": "likelihoods beyond float32"}
        seen = [text for share, text in reasons.items() if row["marks"][-1].get(share)]
        return ", ".join([f"NaN at {row['nan_at']}", *seen])
    return "learnt" if (row["figures"]["AP50"] or 0) >= LEARNT_AP50 else "did not learn"


def print_results(results: dict[str, Any]) -> None:
    """Print the table, then what it says."""
    rows = results["settings"]
    shares_head = f"{'underflow: components':>22} {'persons':>8} {'swamped':>8} {'overflow':>8}"
    print(f"{'setting':20} {'AP':>6} {'AP50':>6} {shares_head} {'s':>6}  outcome")
    for name in (setting.name for setting in SETTINGS if setting.name in rows):
        row = rows[name]
        components, *others = (_share(row, key) for key in SHARES)
        shares = f"{components:22.4f} " + " ".join(f"{share:8.4f}" for share in others)
        print(f"{name:20} {_ap(row):6.3f} {_ap(row, 'AP50'):6.3f} {shares} {row['train_s']:6.0f}  {outcome(row)}")
    print("\n".join(findings(rows)))


def findings(rows: dict[str, Any]) -> list[str]:
    """Hold what was measured against what the paper found."""
    ours = {row["group_size"]: row for row in rows.values() if (row["loss"], row["grouping"]) == ("log", "random")}
    ranked = sorted((k for k in ours if outcome(ours[k]) == "learnt"), key=lambda k: -_ap(ours[k]))
    lines = [f"K_g by AP, random groups, log space: {' > '.join(map(str, ranked)) or 'none'}"]
    paper = sorted((k for k in PAPER_AP if k in ranked), key=lambda k: -PAPER_AP[k])
    if len(paper) > 1:
        order = "the same" if [k for k in ranked if k in PAPER_AP] == paper else "another"
        lines.append(f"the paper's: {' > '.join(map(str, paper))} > 18 (NaN); {order} order")
    for loss in ("log", *EPSILONS):
        row = rows.get(f"{loss}-18-random")
        if row is not None:
            lines.append(f"K_g = 18, {loss}: {outcome(row)}{_course(row)}")
    for size in GROUP_SIZES:
        for ours_are, others_are, other in (
            ("log space", "product", f"product-{size}-random"),
            ("random groups", "fixed", f"log-{size}-fixed"),
        ):
            aps = [_ap(rows[name]) for name in (f"log-{size}-random", other) if name in rows]
            if len(aps) == 2 and not math.isnan(sum(aps)):
                lines.append(f"K_g = {size}: {ours_are} {aps[0]:.3f} AP, {others_are} {aps[1]:.3f}")
    return lines


def draw_results(rows: dict[str, Any]) -> NDArray[np.uint8]:
    """Draw AP and the underflow ratio by K_g: (H, W, 3) uint8 BGR."""
    table = []
    for size in GROUP_SIZES:
        found = {name: rows[key] for name in PLOTTED if (key := name.replace("K", str(size))) in rows}
        figures = {name: _ap(row) for name, row in found.items()}
        shares = {key: _share(found[PLOTTED[0]], key) for key in SHARES[:2] if PLOTTED[0] in found}
        table.append({"K_g": str(size)} | {name: str(value) for name, value in (figures | shares).items()})
    random, product, fixed = PLOTTED
    panels = (
        Panel("AP by K_g, random", (random, product), along="K_g", legend=("log space", "product")),
        Panel("AP by K_g, log space", (random, fixed), along="K_g", legend=("random", "fixed")),
        Panel("underflow by K_g", SHARES[:2], along="K_g", legend=("components", "persons")),
    )
    return draw_panels(panels, table)


def _course(row: dict[str, Any]) -> str:
    """Say how far a run's loss fell, and what came of it, where it ended well."""
    if row["figures"] is None:
        return ""
    first, last = (row["marks"][index]["loss"] for index in (0, -1))
    return f", AP50 {_ap(row, 'AP50'):.3f}, loss {first:.1f} at first, {last:.1f} at last"


def _ap(row: dict[str, Any], key: str = "AP") -> float:
    found = (row["figures"] or {}).get(key)
    return math.nan if found is None else float(found)


def _share(row: dict[str, Any], key: str) -> float:
    """Give the mean over a run's marks; NaN where a sweep began before the share was measured."""
    return sum(mark.get(key, math.nan) for mark in row["marks"]) / len(row["marks"])


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, or one setting; print all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=[setting.name for setting in SETTINGS], action="append")
    parser.add_argument("--trained", type=Path, metavar="MODEL", help="count what leaves float32 in a trained model")
    parser.add_argument("--start", metavar="MODEL", help="train on from this checkpoint; --size must be its own")
    parser.add_argument("--list", action="store_true", help="print the settings' names and end")
    parser.add_argument("--iterations", type=int, default=1400)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--backbone", default="mobilenetv4_conv_small")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--head-convs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--val-images", type=int, default=200)
    parser.add_argument("--people", type=int, nargs=2, default=(1, 1))
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(setting.name for setting in SETTINGS))
        return
    fields = {name: getattr(args, name) for name in Conditions.__dataclass_fields__}
    conditions = Conditions(**{**fields, "people": tuple(args.people)})
    if args.start is not None:
        own = read_checkpoint(Path(args.start)).spec.input
        if (own.height, own.width) != (args.size, args.size):
            parser.error(f"{args.start} takes {own.width}x{own.height} px: pass --size {own.width}")
    results = _open_results(args.out / "results.json", conditions, parser)
    data = args.out / "data"
    if not data.exists():
        counts = {"train_images": args.train_images, "val_images": args.val_images}
        write_dataset(data, **counts, size=args.size, people=conditions.people, occlusion=0.0, variety=0.0)
    if args.trained:
        print_range(args.trained, data, args.train_images)
        return
    for setting in SETTINGS:
        if setting.name not in results["settings"] and (not args.only or setting.name in args.only):
            results["settings"][setting.name] = run_setting(setting, conditions, data, args.out)
            write_whole(args.out / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    print_results(results)
    write_image(args.out / "rkg.png", draw_results(results["settings"]))


def _open_results(path: Path, conditions: Conditions, parser: argparse.ArgumentParser) -> dict[str, Any]:
    stated = json.loads(json.dumps(asdict(conditions)))
    if not path.is_file():
        return {"conditions": stated, "settings": {}}
    results: dict[str, Any] = json.loads(path.read_text())
    if results["conditions"] != stated:
        parser.error(
            f"{path} was made under other conditions, {results['conditions']}: repeat them, or choose another OUT"
        )
    return results


if __name__ == "__main__":
    main()
