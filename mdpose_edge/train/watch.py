"""What the main process shows of a run: progress, logs, TensorBoard, pictures, and curves.png at the end."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import TracebackType

import torch
from torch import nn
from typing_extensions import Self

from mdpose_edge.common.optional import available
from mdpose_edge.datasets.images import write_image
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.registry import training_of
from mdpose_edge.spec import ModelSpec
from mdpose_edge.train.board import Board
from mdpose_edge.train.config import TrainConfig
from mdpose_edge.train.curves import draw_curves
from mdpose_edge.train.data import Batch
from mdpose_edge.train.health import LossWatch
from mdpose_edge.train.log import LOG_COLUMNS, CsvLog, read_csv, shown
from mdpose_edge.train.pictures import training_picture
from mdpose_edge.train.state import CURVES_FILE, EVAL_FILE, LOG_FILE, PICTURES_FOLDER
from mdpose_edge.train.step import Step
from mdpose_edge.train.validation import Figures

BOARD_FOLDER = "tensorboard"


@dataclass(frozen=True)
class TrainProgress:
    """What a run reports after each iteration."""

    iteration: int
    iterations: int
    loss: float
    images_per_s: float
    """Of all processes together."""
    data_wait: float = 0.0
    """Share of the iteration's time that the network waited for images."""
    gpu_use: float | None = None
    """Share of the last look's sample period in which the GPU computed; None where it cannot be asked."""
    figures: Figures | None = None
    """Of the last evaluation."""


class Watch:
    """The run's record; enter it to have its files closed.

    Args:
        config: what is watched, and how often.
        out: the run's folder.
        start: the first iteration to come; on resume, lines from there on are dropped.
        device: of this process.
        report: called after each iteration.
        measured: names of what an evaluation measures, the columns of eval.csv; None where none is made.

    Raises:
        ConfigError: the run that goes on has evaluations by another protocol.
    """

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        start: int,
        device: torch.device,
        report: Callable[[TrainProgress], None] | None,
        measured: Sequence[str] | None = None,
    ) -> None:
        self.config, self.out, self.device, self.report = config, out, device, report
        family = training_of(config.family)
        self._diagrams = family.figures
        self._figure_names = tuple(chain.from_iterable(family.figures.values()))
        rows = read_csv(out / LOG_FILE, below=start)
        evaluations = _evaluations(out / EVAL_FILE, start, measured) if start else []
        self.health = LossWatch(config.divergence, (float(row["loss"]) for row in rows))
        self.evaluated = {int(row["iteration"]) for row in evaluations}
        self._gpu_use: float | None = None
        self._figures: Figures | None = None
        self._progress: TrainProgress | None = None
        with ExitStack() as stack:
            self.board = Board(out / BOARD_FOLDER, start) if config.tensorboard else None
            if self.board is not None:
                stack.callback(self.board.close)
            self.log = stack.enter_context(
                CsvLog(out / LOG_FILE, (*LOG_COLUMNS, *family.parts, *self._figure_names), rows)
            )
            columns = tuple(evaluations[0]) if evaluations else ("iteration", *(measured or ()))
            self.evaluations = stack.enter_context(CsvLog(out / EVAL_FILE, columns, evaluations))
            self._stack = stack.pop_all()

    def record(self, iteration: int, step: Step, images_per_s: float, data_wait: float) -> None:
        """Write down an iteration (from 0)."""
        done = iteration + 1
        is_due = done % self.config.log_every == 0
        if is_due:
            self._gpu_use = gpu_use(self.device)
        values = {
            "loss": step.loss,
            "grad_norm": step.norm,
            "lr": step.rate,
            "images_per_s": images_per_s,
            "data_wait": data_wait,
            "gpu_use": self._gpu_use if is_due else None,
            **step.parts,
            **{name: step.figures.get(name) for name in self._figure_names},
        }
        forms = (".9g", ".6g", ".6g", ".1f", ".3f", ".2f")
        padded = (*forms, *[".6g"] * (len(values) - len(forms)))
        fields = (shown(value, form) for value, form in zip(values.values(), padded, strict=True))
        self.log.add(str(iteration), *fields)
        if is_due:
            self.log.flush()
            if self.board is not None:
                self.board.scalars(done, {f"train/{name}": value for name, value in values.items()})
        self.health.add(step.loss)
        total = self.config.schedule.iterations
        self._progress = TrainProgress(done, total, step.loss, images_per_s, data_wait, self._gpu_use)

    def publish(self) -> None:
        """Report the iteration that was recorded last."""
        if self.report is not None and self._progress is not None:
            self.report(replace(self._progress, figures=self._figures))

    def figures(self, done: int, figures: Figures) -> None:
        """Record an evaluation after so many iterations."""
        self._figures = figures
        self.evaluations.add(str(done), *(shown(figures[name], ".6f") for name in self.evaluations.columns[1:]))
        self.evaluations.flush()
        if self.board is not None:
            self.board.scalars(done, {f"val/{name}": value for name, value in figures.items()})

    def picture(self, done: int, network: nn.Module, spec: ModelSpec, batch: Batch) -> None:
        """Paint predictions beside the truth, where one is due."""
        if not self.config.picture_every or done % self.config.picture_every:
            return
        painted = training_picture(network, spec, batch)
        write_image(self.out / PICTURES_FOLDER / f"{done:08d}.jpg", painted)
        if self.board is not None:
            self.board.picture(done, painted)

    def draw(self) -> None:
        """Draw the curves of the run so far."""
        self.log.flush()
        curves = draw_curves(read_csv(self.out / LOG_FILE), read_csv(self.out / EVAL_FILE), self._diagrams)
        write_image(self.out / CURVES_FILE, curves)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _evaluations(path: Path, start: int, measured: Sequence[str] | None) -> list[dict[str, str]]:
    """Read the evaluations of a run that goes on; refuse those that no line of this run's would stand below."""
    rows = read_csv(path, below=start + 1)
    if rows and measured is not None and tuple(rows[0])[1:] != tuple(measured):
        do = f"validate on data of the protocol that the run began with, or move {path.name} away"
        names = ", ".join(tuple(rows[0])[1:])
        raise ConfigError(str(path), expected=f"the columns {', '.join(measured)}", got=names, do=do)
    return rows


def gpu_use(device: torch.device) -> float | None:
    """Ask NVML how busy a GPU was lately, as a share; None without a GPU, the package nvidia-ml-py, or an answer."""
    if device.type != "cuda" or not available("pynvml"):
        return None
    nvml_error: type[Exception] = importlib.import_module("pynvml").NVMLError
    try:
        return torch.cuda.utilization(device) / 100
    except (RuntimeError, nvml_error):  # no driver's library; a partitioned GPU, which has no figure
        return None
