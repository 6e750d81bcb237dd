"""The logs of a run: CSV files that can be plotted, and that resume with the run."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from mdpose_edge.common.files import write_whole

LOG_COLUMNS = ("iteration", "loss", "grad_norm", "lr", "images_per_s", "data_wait", "gpu_use")
"""Of log.csv, a line an iteration; the loss's parts and the family's own figures follow. data_wait and gpu_use are
shares in [0, 1]; gpu_use and the figures are empty where nobody looked."""


class CsvLog:
    """A CSV file that grows line by line, its first column an iteration.

    Args:
        path: the file; replaced.
        columns: names of its columns.
        rows: lines to begin with, of a run that resumes; a column that they lack stays empty.
    """

    def __init__(self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]] = ()) -> None:
        self.columns = tuple(columns)
        lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in rows)]
        write_whole(path, ("\n".join(lines) + "\n").encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (__exit__ closes it)

    def add(self, *values: str) -> None:
        """Add a line, a value for each column."""
        assert len(values) == len(self.columns)
        self._file.write(",".join(values) + "\n")

    def flush(self) -> None:
        """Hand the lines to the system, so that they outlive this process."""
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_csv(path: Path, *, below: int | None = None) -> list[dict[str, str]]:
    """Read what a CsvLog wrote: lines of iterations below a number, all by default; nothing where there is no file.

    A line that a kill has cut is left out.
    """
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    whole = [dict(zip(header, row, strict=True)) for row in rows if row and len(row) == len(header)]
    return [row for row in whole if below is None or int(row["iteration"]) < below]


def shown(value: float | None, form: str) -> str:
    """Format a number for a log; nothing where there is none."""
    return "" if value is None or math.isnan(value) else format(value, form)
