"""TensorBoard: the run's scalars and pictures as its event files."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.common.optional import require


class Board:
    """Event files in a folder.

    Args:
        folder: where they go.
        start: the first iteration to come; a viewer hides what an earlier process wrote from there on.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, start: int) -> None:
        require("tensorboard", extra="watch", feature="tensorboard=true")
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = writer(str(folder), purge_step=start if start else None)

    def scalars(self, iteration: int, values: Mapping[str, float | None]) -> None:
        """Add points to curves; None adds none."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, iteration)

    def picture(self, iteration: int, image_bgr: NDArray[np.uint8]) -> None:
        """Add a picture, (H, W, 3) uint8 BGR."""
        self._writer.add_image("predictions", image_bgr[..., ::-1].copy(), iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        self._writer.close()
