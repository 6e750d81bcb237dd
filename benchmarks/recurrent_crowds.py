"""One person at a time on drawn crowds: against MDPose at equal visits, one call of the decoder against two.

    python -m benchmarks.recurrent_crowds runs/crowds [--visits 20000] [--only two_calls ...] [--json FILE]

Every variant trains DLA-34 from the demo trunk on pictures of one to four people, everybody overlapped. Measured: AP by
overlap (benchmarks/occlusion.py), the error of the count of people, INT8 of OpenVINO by step, and in which order people
are given. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.families import command
from benchmarks.occlusion import measure
from mdpose_edge.checkpoint import load_network
from mdpose_edge.common.files import write_whole
from mdpose_edge.datasets.coco import CocoSplit, load_split
from mdpose_edge.datasets.images import read_annotated
from mdpose_edge.demo import START_CHECKPOINT
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.recurrent.decode import EVALUATION, RecurrentDecoder
from mdpose_edge.oks import oks_matrix
from mdpose_edge.preprocess import preprocess
from mdpose_edge.train.config import load_config
from mdpose_edge.train.predict import head_tensors

CONFIGS = Path(__file__).parent.parent / "configs"
SETTINGS = ["--size", "160", "--people", "1-4", "--occlusion", "1", "--variety", "0.5", "--seed", "31"]
TRAIN_IMAGES, VAL_IMAGES = 6000, 300
FOUND = 0.5
"""OKS from which on a step is a person's."""


class Variant(NamedTuple):
    """What is trained."""

    config: str
    settings: tuple[str, ...] = ()


VARIANTS = {
    "mdpose": Variant("dla34_synth_128"),
    "two_calls": Variant("recurrent_synth_128"),
    "one_call": Variant("recurrent_synth_128", ("network.calls=1",)),
}


def train(name: str, data: Path, out: Path, visits: int) -> Path:
    """Train a variant, or go on with it; return the model."""
    model, variant = out / "run" / "model.safetensors", VARIANTS[name]
    if not model.exists():
        config = CONFIGS / f"{variant.config}.yaml"
        iterations = visits // load_config(config).batch_size
        settings = (f"schedule.iterations={iterations}", f"init={START_CHECKPOINT}", "init_only=backbone.")
        words = [word for setting in (*settings, *variant.settings) for word in ("--set", setting)]
        command("train", config, "--data", data, "--out", out / "run", "--resume", "auto", *words)
    return model


def export(model: Path, data: Path, out: Path) -> dict[str, Any]:
    """Export for OpenVINO in fp32 and INT8, and return what the gate found."""
    if not (out / "calib").exists():
        words = ["--data", data, "--split", "train", "--like", model, "--num", 128]
        command("calib", "make", *words, "--out", out / "calib", "--allow-few")
    for precision, words in (("fp32", []), ("int8", ["--calib", out / "calib", "--allow-few"])):
        if not (out / precision).exists():
            command("export", model, "--target", "openvino", "--precision", precision, "--out", out / precision, *words)
    words = ["--reference", out / "fp32", "--data", data, "--json", out / "check.json", "--force"]
    command("check", out / "int8", *words, fine=(0, 1))
    found: dict[str, Any] = json.loads((out / "check.json").read_text())
    return found


def count_error(model: Path, split: CocoSplit) -> float:
    """Return the mean over images of how many people too few or too many are found, as the model is deployed."""
    with PoseEstimator(model, runtime="torch") as estimator:
        errors = [
            abs(
                len(estimator(read_annotated(image.path, image.wh)[0]))
                - int((split.persons(row).num_keypoints > 0).sum())
            )
            for row, image in enumerate(split.images)
        ]
    return float(np.mean(errors))


def order(model: Path, split: CocoSplit) -> dict[str, float]:
    """Return, over pairs of people of an image, how often the earlier is the larger, the left, and the fuller one."""
    network, spec = load_network(model)
    decoder, pairs = RecurrentDecoder(spec, EVALUATION), []
    for row, image in enumerate(split.images):
        pixels, geometry = preprocess(read_annotated(image.path, image.wh)[0], spec.input)
        people = decoder.read(head_tensors(network.eval(), spec, torch.from_numpy(pixels)[None]))
        persons = split.persons(row)
        if not len(people.scores) or not len(persons.areas):
            continue
        labelled = persons.keypoints[..., 2] > 0
        found = geometry.to_frame(people.keypoints)
        oks = oks_matrix(found, persons.keypoints[..., :2], labelled, persons.areas, spec.keypoints.sigmas)
        whom = [int(line.argmax()) for line in oks if line.max() >= FOUND]
        for one, other in combinations(dict.fromkeys(whom), 2):
            left = [persons.boxes_xywh[person, 0] for person in (one, other)]
            seen = [int((persons.keypoints[person, :, 2] == 2).sum()) for person in (one, other)]
            pairs.append((persons.areas[one] > persons.areas[other], left[0] < left[1], seen[0] > seen[1]))
    shares = np.mean(pairs, axis=0) if pairs else np.full(3, np.nan)
    return {"pairs": len(pairs), **dict(zip(("larger", "left", "fuller"), shares.tolist(), strict=True))}


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, train, measure, print, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--visits", type=int, default=20_000, help="pictures that each variant is shown")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args(argv)
    data = given.out / "data"
    if not data.exists():
        total = TRAIN_IMAGES + VAL_IMAGES
        command("synth", "images", data, "--images", total, "--val-images", VAL_IMAGES, *SETTINGS)
    split, figures = load_split(data, "val"), {}
    for name in given.only:
        out = given.out / name
        model = train(name, data, out, given.visits)
        found = {"overlap": measure(model, split, "torch", None)["overlap"], "count_error": count_error(model, split)}
        checked = export(model, data, out)
        found["gate"] = {one["key"]: one for one in checked["findings"]}
        if name != "mdpose":
            found["order"] = order(model, split)
        figures[name] = found
        print(name, json.dumps({key: value for key, value in found.items() if key != "gate"}, indent=1), flush=True)
    if given.json is not None:
        write_whole(given.json, (json.dumps({"visits": given.visits, "variants": figures}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
