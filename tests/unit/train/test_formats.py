"""Training and evaluation with other keypoints than COCO's 17, end to end."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdpose_edge.checkpoint import save_checkpoint
from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS, keypoint_set
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.evaluate import CROWD_LEVELS, CROWDPOSE_FIGURES, evaluate, figure_names, protocol_figures
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.families.mdpose.training import LossConfig
from mdpose_edge.families.mixture_dense.network import NetworkConfig as DenseConfig
from mdpose_edge.families.registry import evaluation_options, training_of
from mdpose_edge.spec import COCO_KEYPOINTS, DecodeSpec
from mdpose_edge.train.config import DataConfig, ScheduleConfig
from mdpose_edge.train.log import read_csv
from mdpose_edge.train.loop import train
from mdpose_edge.train.start import begin, spec_of_run
from mdpose_edge.train.state import EVAL_FILE
from mdpose_edge.train.validation import Validation
from tests.unit.datasets.public_formats import write_crowdpose
from tests.unit.tiny_coco import document, person, write_split
from tests.unit.train.crude_people import tiny_config

TWO = ScheduleConfig(iterations=2)
CORNERS = """
names: [tail, left_wing, right_wing]
flips: [[left_wing, right_wing]]
skeleton: [[tail, left_wing], [tail, right_wing]]
sigmas: [0.05, 0.1, 0.1]
"""


def test_crowdposes_fourteen_keypoints_go_from_file_to_figures(tmp_path: Path) -> None:
    write_crowdpose(tmp_path, "train")
    model = train(tiny_config(schedule=TWO, batch_size=2), tmp_path, tmp_path / "run")
    with PoseEstimator(model, threads=1, threshold=0.0) as estimator:
        assert estimator.spec.keypoints == CROWDPOSE_KEYPOINTS
        poses = estimator(np.zeros((96, 128, 3), np.uint8))
    assert poses.keypoints_xy.shape[1:] == poses.sigma_xy.shape[1:] == (14, 2)
    found = evaluate(model, tmp_path, "train", threads=1)
    assert found.format == "crowdpose" and set(CROWD_LEVELS) < set(found.figures)


def crowdpose_run(tmp_path: Path, **options: Any) -> Path:
    """Train on CrowdPose's files, measured on them twice; give the run's folder."""
    config = tiny_config(schedule=ScheduleConfig(iterations=4), batch_size=2, checkpoint_every=2, **options)
    validation = Validation(tmp_path, "train", evaluation_options("mdpose"), protocol_figures, figure_names)
    train(config, tmp_path, tmp_path / "run", validation=validation, resume="auto")
    return tmp_path / "run"


def test_training_on_crowdpose_is_evaluated_by_its_protocol(tmp_path: Path) -> None:
    write_crowdpose(tmp_path, "train")
    out = crowdpose_run(tmp_path, eval_every=2, tensorboard=True)
    rows = read_csv(out / EVAL_FILE)
    assert tuple(rows[0]) == ("iteration", *CROWDPOSE_FIGURES, *CROWD_LEVELS)
    found = evaluate(out / "model.safetensors", tmp_path, "train", threads=1)
    assert {name: float(rows[-1][name]) for name in found.figures} == pytest.approx(found.figures, abs=1e-6)
    assert [row["iteration"] for row in rows] == ["2", "4"]
    event_accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(out / "tensorboard")).Reload()
    assert {"val/AP", "val/AP_hard"} <= set(events.Tags()["scalars"])


def test_evaluations_by_another_protocol_are_not_gone_on_with(tmp_path: Path) -> None:
    write_crowdpose(tmp_path, "train")
    out = crowdpose_run(tmp_path, eval_every=2)
    (out / "model.safetensors").unlink()
    coco = "iteration,AP,AP50,AP75,APM,APL,AR,AR50,AR75,ARM,ARL\n"
    (out / EVAL_FILE).write_text(coco + "2" + ",0.5" * 10 + "\n")
    before = (out / EVAL_FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"eval\.csv: expected the columns AP, .*AP_hard, .*, got AP, .*APM, .*move"):
        crowdpose_run(tmp_path, eval_every=2)
    assert (out / EVAL_FILE).read_bytes() == before
    (out / EVAL_FILE).write_text(coco)  # of a run that never came to an evaluation
    assert tuple(read_csv(crowdpose_run(tmp_path, eval_every=2) / EVAL_FILE)[0])[-1] == "AP_medium_0.2"


def write_birds(folder: Path) -> None:
    """Write a COCO folder whose animals have three keypoints and one more that no set here asks for."""
    names = ["beak", "tail", "left_wing", "right_wing"]
    birds = [person(7, keypoints=[30, 30, 2, 60, 90, 2, 110, 50, 1, 0, 0, 0], num_keypoints=3)]
    data = document(birds)
    data["categories"] = [{"id": 1, "name": "bird", "keypoints": names}]
    for split in ("train", "val"):
        write_split(folder, data, split)


def test_a_keypoint_set_of_ones_own_goes_from_yaml_to_figures(tmp_path: Path) -> None:
    write_birds(tmp_path)
    (tmp_path / "birds.yaml").write_text(CORNERS)
    config = tiny_config(schedule=TWO, batch_size=2, data=DataConfig(keypoints=str(tmp_path / "birds.yaml")))
    model = train(config, tmp_path, tmp_path / "run")
    found = evaluate(model, tmp_path, "val", threads=1)
    assert found.figures["AP"] is not None
    with PoseEstimator(model, threads=1) as estimator:
        assert estimator.spec.keypoints.names == ("tail", "left_wing", "right_wing")
        assert estimator.spec.keypoints.flip_pairs == ((1, 2),)


def test_data_without_the_sets_keypoints_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_split(tmp_path, document([person(7)]), "train")
    config = tiny_config(data=DataConfig(keypoints="crowdpose14"))
    with pytest.raises(DataError, match=r"expected the keypoints left_shoulder, .*got nose"):
        train(config, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


BODY = """
names: [neck, left_ankle, right_ankle, nose]
flips: [[left_ankle, right_ankle]]
skeleton: [[neck, nose], [neck, left_ankle], [neck, right_ankle]]
sigmas: [0.08, 0.09, 0.09, 0.03]
"""


@pytest.mark.parametrize("family", ["mdpose", "mixture_dense"])
def test_keypoints_of_the_same_name_go_over_from_a_model_of_others(family: str, tmp_path: Path) -> None:
    (tmp_path / "body.yaml").write_text(BODY)
    networks: dict[str, Any] = {
        "mdpose": NetworkConfig("mobilenetv4_conv_small", channels=8, head_convs=1),
        "mixture_dense": DenseConfig("mobilenetv4_conv_small", channels=8, head_channels=8),
    }
    base = tiny_config(family=family, network=networks[family], loss=None)
    old = spec_of_run(base, COCO_KEYPOINTS)
    start = training_of(family).network(old).state_dict()
    start = {name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in start.items()}
    save_checkpoint(tmp_path / "start.safetensors", old, start)
    new = spec_of_run(base, keypoint_set(tmp_path / "body.yaml"))
    said: list[str] = []
    config = replace(base, init=str(tmp_path / "start.safetensors"))
    now = begin(config, new, is_start=True, note=said.append).state_dict()
    for name, tensor in now.items():
        rows = training_of(family).keypoint_rows(name)  # type: ignore[attr-defined]
        if not rows:
            assert torch.equal(tensor, start[name]), name
            continue
        for position, keypoint in enumerate(new.keypoints.names):
            here = tensor[rows * position : rows * (position + 1)]
            if keypoint == "neck":
                assert torch.isfinite(here).all()
                continue
            row = rows * COCO_KEYPOINTS.names.index(keypoint)
            assert torch.equal(here, start[name][row : row + rows]), (name, keypoint)
        assert torch.equal(tensor[rows * 4 :], start[name][rows * 17 :])  # MDPose's box centre
    (sentence,) = said
    assert "began anew: none; left: none; of 4 keypoints 3 went over by name; began anew: neck" in sentence


def test_what_is_trained_to_count_merges(tmp_path: Path) -> None:
    assert spec_of_run(tiny_config(), COCO_KEYPOINTS).decode == DecodeSpec()
    counting = replace(tiny_config(), loss=LossConfig(count_weight=1.0))
    assert spec_of_run(counting, COCO_KEYPOINTS).decode.nms == "merge"
