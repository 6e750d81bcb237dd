"""What a run shows: figures while it trains, pictures, curves, TensorBoard, and when it stops for good."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mdpose_edge.errors import DataError, MissingPackageError, TrainingError
from mdpose_edge.evaluate import coco_figures, evaluate, figure_names
from mdpose_edge.families.mdpose.loss import Mixture
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.families.mdpose.underflow import underflow_ratio
from mdpose_edge.families.registry import evaluation_options
from mdpose_edge.train.config import ScheduleConfig
from mdpose_edge.train.curves import BOTTOM, COLUMNS, LEFT, LINES, PANEL_WH, TOP, draw_curves
from mdpose_edge.train.health import RECENT, WINDOW, LossWatch
from mdpose_edge.train.log import LOG_COLUMNS, CsvLog, read_csv
from mdpose_edge.train.loop import LOG_FILE, RESUME_FILE, TrainProgress, train
from mdpose_edge.train.state import EVAL_FILE
from mdpose_edge.train.validation import Validation
from mdpose_edge.train.watch import BOARD_FOLDER, CURVES_FILE, PICTURES_FOLDER, gpu_use
from tests.unit.tiny_coco import document, unlabelled, write_split
from tests.unit.train.crude_people import SMALL_PX, tiny_config

SMALL = {
    "network": NetworkConfig(backbone="test_resnet", channels=16, head_convs=2),
    "schedule": ScheduleConfig(iterations=4, kind="cosine"),
    "log_every": 2,
}


scored: list[list[dict[str, Any]]] = []
"""Results that a run handed to its protocol, an entry for each evaluation."""


def score(*args: Any, **options: Any) -> Any:
    scored.append(list(args[1]))
    return coco_figures(*args, **options)


@pytest.fixture(scope="module")
def watched(crude_people: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainProgress]]:
    """A run that shows everything."""
    out, seen = tmp_path_factory.mktemp("watched") / "run", list[TrainProgress]()
    scored.clear()
    config = tiny_config(**SMALL, eval_every=2, picture_every=4, tensorboard=True)
    validation = Validation(crude_people, "train", evaluation_options("mdpose"), score, figure_names)
    train(config, crude_people, out, validation=validation, report=seen.append)
    return out, seen


def test_figures_while_training_are_those_of_the_finished_model(watched: Any, crude_people: Path) -> None:
    out, seen = watched
    rows = read_csv(out / EVAL_FILE)
    assert [row["iteration"] for row in rows] == ["2", "4"]
    found = evaluate(out / "model.safetensors", crude_people, "train")
    assert [row["image_id"] for row in scored[-1]] == [row["image_id"] for row in found.results] != []
    for name, exact in (("score", 1e-5), ("keypoints", 0.02)):  # px; batch norms are folded there, and not here
        ours, theirs = (np.array([row[name] for row in rows]) for rows in (scored[-1], found.results))
        np.testing.assert_allclose(ours, theirs, atol=exact)
    assert {name: row for name, row in rows[-1].items() if row == ""}.keys() == {
        name for name, value in found.figures.items() if value is None
    }
    assert seen[-1].figures is not None and seen[-1].figures["AP"] == pytest.approx(float(rows[-1]["AP"]), abs=1e-6)
    assert seen[0].figures is None


def test_log_holds_speed_data_wait_and_underflow_where_it_looked(watched: Any) -> None:
    out, seen = watched
    rows = read_csv(out / LOG_FILE)
    assert tuple(rows[0]) == (*LOG_COLUMNS, "nll", "count", "underflow", "underflow_persons")
    assert all(float(row["nll"]) == pytest.approx(float(row["loss"]), rel=1e-5) for row in rows)
    assert [bool(row["underflow"]) for row in rows] == [False, True, False, True]
    assert all(0 <= float(row["data_wait"]) <= 1 and float(row["images_per_s"]) > 0 for row in rows)
    assert all(0 <= progress.data_wait <= 1 for progress in seen)


def test_picture_shows_truth_and_prediction(watched: Any) -> None:
    out, _ = watched
    (path,) = (out / PICTURES_FOLDER).iterdir()
    picture = cv2.imread(str(path))
    assert path.name == "00000004.jpg" and picture.shape[1] > picture.shape[0] > SMALL_PX
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    assert (hsv[:, : picture.shape[1] // 4, 1] > 150).any()  # limbs of the truth are drawn in strong colours


def test_curves_are_drawn_at_the_end(watched: Any) -> None:
    out, _ = watched
    curves = cv2.imread(str(out / CURVES_FILE))
    assert curves.shape == (4 * PANEL_WH[1], COLUMNS * PANEL_WH[0], 3)


def test_tensorboard_reads_the_scalars_and_the_picture(watched: Any) -> None:
    pytest.importorskip("tensorboard")
    event_accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    out, seen = watched
    events = event_accumulator.EventAccumulator(str(out / BOARD_FOLDER)).Reload()
    losses = events.Scalars("train/loss")
    assert [point.step for point in losses] == [2, 4]
    assert [point.value for point in losses] == pytest.approx([seen[1].loss, seen[3].loss], rel=1e-6)
    assert {"train/underflow", "train/data_wait", "train/images_per_s", "val/AP"} <= set(events.Tags()["scalars"])
    assert [image.step for image in events.Images("predictions")] == [4]


def test_tensorboard_that_is_absent_is_one_sentence(
    crude_people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"tensorboard=true.*mdpose-edge\[watch\]"):
        train(tiny_config(**SMALL, tensorboard=True), crude_people, tmp_path / "run")


def test_validation_split_that_is_absent_is_refused_before_training(crude_people: Path, tmp_path: Path) -> None:
    validation = Validation(crude_people, "test", evaluation_options("mdpose"), coco_figures, figure_names)
    with pytest.raises(DataError, match="person_keypoints_test2017"):
        train(tiny_config(**SMALL, eval_every=2), crude_people, tmp_path / "run", validation=validation)
    assert not (tmp_path / "run").exists()


def test_validation_split_of_nobody_is_refused_before_training(crude_people: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "empty", document([unlabelled(7)]))
    validation = Validation(tmp_path / "empty", "val", evaluation_options("mdpose"), coco_figures, figure_names)
    with pytest.raises(DataError, match="people with annotated keypoints to measure on, got none in the split"):
        train(tiny_config(**SMALL, eval_every=2), crude_people, tmp_path / "run", validation=validation)
    assert not (tmp_path / "run").exists()


def test_evaluation_that_a_kill_prevented_is_made_up_for(crude_people: Path, tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupted_once(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return coco_figures(*args, **options)

    config = tiny_config(**SMALL, eval_every=2, checkpoint_every=2)
    validation = Validation(crude_people, "train", evaluation_options("mdpose"), interrupted_once, figure_names)
    with pytest.raises(KeyboardInterrupt):
        train(config, crude_people, tmp_path / "run", validation=validation)
    train(config, crude_people, tmp_path / "run", validation=validation, resume=True)
    assert [row["iteration"] for row in read_csv(tmp_path / "run" / EVAL_FILE)] == ["2", "4"]


@pytest.mark.parametrize(
    ("size", "components", "persons"),
    [
        # Three keypoints, each e^-40 likely in the near component and e^-120 in the far one; float32 ends at e^-104.
        pytest.param(1, 1 / 2, 0.0, id="K_g 1: the far component"),
        pytest.param(2, 1 / 2, 0.0, id="K_g 2: e^-80 is still a number"),
        pytest.param(3, 1.0, 1.0, id="K_g 3: e^-120 is not, and nothing is left"),
    ],
)
def test_underflow_ratio_is_what_a_product_of_densities_loses(size: int, components: float, persons: float) -> None:
    near_far = torch.tensor([20.0, 60.0]).expand(1, 6, 2)  # of each axis, in units of gamma; 2 gamma is 1
    mixture = Mixture(torch.zeros(1, 2), near_far * 0.5, torch.full((1, 6, 2), 0.5))
    groups = {1: ((0,), (1,), (2,)), 2: ((0, 1), (2,)), 3: ((2, 0, 1),)}[size]
    one = torch.ones(1, 1, dtype=torch.bool)
    origin, labelled = torch.zeros(1, 1, 3, 2), torch.ones(1, 1, 3, dtype=torch.bool)
    found = underflow_ratio(mixture, origin, labelled, one, groups)
    assert found == (pytest.approx(components), pytest.approx(persons))
    labelled[..., 1] = False  # contributes the factor 1: of three, two remain, and e^-80 is a number
    assert underflow_ratio(mixture, origin, labelled, one, ((2, 0, 1),)) == (pytest.approx(1 / 2), 0.0)


def test_underflow_ratio_of_nobody_is_not_a_number() -> None:
    mixture = Mixture(torch.zeros(1, 2), torch.zeros(1, 2, 2), torch.ones(1, 2, 2))
    nobody = torch.zeros(1, 1, dtype=torch.bool)
    found = underflow_ratio(mixture, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, dtype=torch.bool), nobody, ((0,),))
    assert math.isnan(found.components) and math.isnan(found.persons)


def test_divergence_is_seen_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    watch = LossWatch(10.0, [5.0] * WINDOW)
    for _ in range(RECENT):
        watch.add(16.0)
    assert not watch.is_healthy  # no checkpoint replaces the good one
    watch.check(WINDOW + RECENT, tmp_path / RESUME_FILE)  # but it may still be a spike
    for _ in range(WINDOW - RECENT):
        watch.add(16.0)
    (tmp_path / RESUME_FILE).touch()
    with pytest.raises(TrainingError, match=r"iteration 200: expected a loss below.*got 16 over 100.*init=.*last") as e:
        watch.check(200, tmp_path / RESUME_FILE)
    assert "\n" not in str(e.value)


def test_learning_and_spikes_are_not_divergence(tmp_path: Path) -> None:
    losses = [20.0 - 0.1 * i + (30.0 if i % 50 == 0 else 0.0) for i in range(400)]
    watch = LossWatch(10.0, losses)
    assert watch.is_healthy
    watch.check(400, tmp_path / RESUME_FILE)


def test_run_that_diverges_stops_with_a_sentence(crude_people: Path, tmp_path: Path) -> None:
    """Resumed behind a log whose losses began far lower, a run is called diverged as soon as its window is full."""
    out = tmp_path / "run"
    config = tiny_config(**{**SMALL, "schedule": ScheduleConfig(iterations=6, milestones=())}, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, crude_people, out, report=_interrupt_at_2)
    with CsvLog(out / LOG_FILE, LOG_COLUMNS) as log:
        for loss in [-100.0] * WINDOW + [50.0] * WINDOW:
            log.add("0", str(loss), *[""] * (len(LOG_COLUMNS) - 2))
    before = (out / RESUME_FILE).read_bytes()
    with pytest.raises(TrainingError, match=r"iteration 4: expected a loss below.*lower optimizer\.lr.*init="):
        train(config, crude_people, out, resume=True)
    assert (out / RESUME_FILE).read_bytes() == before


def _interrupt_at_2(progress: TrainProgress) -> None:
    if progress.iteration == 2:
        raise KeyboardInterrupt


def test_csv_log_drops_a_line_that_a_kill_has_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with CsvLog(path, ("iteration", "loss")) as log:
        log.add("0", "1.5")
        log.add("1", "1.25")
    assert read_csv(path, below=1) == [{"iteration": "0", "loss": "1.5"}]
    path.write_text("iteration,loss\n0,1.5\n1")
    assert read_csv(path) == [{"iteration": "0", "loss": "1.5"}]
    assert read_csv(tmp_path / "none.csv") == []


def test_curves_of_odd_data() -> None:
    rows = [{"iteration": str(i), "loss": str(-i), "lr": "0", "grad_norm": "nan", "gpu_use": ""} for i in range(3)]
    image = draw_curves(rows, [{"iteration": "2", "AP": "0.5", "AP50": ""}])
    assert image.dtype == np.uint8 and image.shape[1] == COLUMNS * PANEL_WH[0]
    assert (draw_curves(rows[:1], []) != 255).any()


def test_each_of_two_curves_stands_in_a_legend_in_its_colour() -> None:
    rows = [{"iteration": str(i), "data_wait": "0.1", "gpu_use": "", "underflow": "0.2"} for i in range(3)]
    rows = [{**row, "underflow_persons": "0.1"} for row in rows]
    titles = [
        image[: TOP - 4]
        for image in np.split(draw_curves(rows, [], {"underflow": ("underflow", "underflow_persons")}), 3)
    ]  # no curve reaches so high

    def found(rows: int, column: int) -> list[bool]:
        part = titles[rows][:, column * PANEL_WH[0] : (column + 1) * PANEL_WH[0]]
        return [bool((part == color).all(axis=2).any()) for color in LINES]

    assert found(0, 0) == [False, False]  # one curve needs none
    assert found(2, 0) == [True, False]  # no GPU, no curve
    assert found(2, 1) == [True, True]


def test_a_single_iteration_has_no_other_iterations_number_below_it() -> None:
    rows = [{"iteration": "4", "loss": "1"}]
    axis = draw_curves(rows, [])[PANEL_WH[1] - BOTTOM + 4 : PANEL_WH[1], LEFT : PANEL_WH[0]]
    dark = (axis < 160).all(axis=2).any(axis=0)
    assert dark[:12].any() and not dark[40:-40].any()


def test_no_gpu_has_no_utilisation() -> None:
    assert gpu_use(torch.device("cpu")) is None
