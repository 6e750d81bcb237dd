"""The log of a run: a CSV file that can be plotted, and that resumes with the run."""

from __future__ import annotations

import csv
import os
from pathlib import Path

LOG_COLUMNS = ("iteration", "loss", "grad_norm", "lr", "images_per_s", "data_wait")


class TrainingLog:
    """log.csv, a line an iteration.

    Args:
        path: the file; replaced unless the run resumes.
        start: the first iteration to come; on resume, lines from there on are dropped.
    """

    def __init__(self, path: Path, start: int) -> None:
        rows: list[list[str]] = []
        if start and path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                whole = [row for row in list(csv.reader(file))[1:] if len(row) == len(LOG_COLUMNS)]
            rows = [row for row in whole if int(row[0]) < start]
        temporary = path.with_suffix(".tmp")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(LOG_COLUMNS), *rows])
        os.replace(temporary, path)
        self.file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 (__exit__ closes it)
        self.writer = csv.writer(self.file)

    def add(self, iteration: int, loss: float, norm: float, rate: float, speed: float, wait: float) -> None:
        """Add an iteration: LOG_COLUMNS, of which data_wait is a share of its time."""
        self.writer.writerow([iteration, f"{loss:.9g}", f"{norm:.6g}", f"{rate:.6g}", f"{speed:.1f}", f"{wait:.3f}"])

    def flush(self) -> None:
        """Hand the lines to the system, so that they outlive this process."""
        self.file.flush()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
