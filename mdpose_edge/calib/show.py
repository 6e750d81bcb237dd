"""What is in a calibration set: figures, and a sheet to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdpose_edge.calib.dataset import CalibrationImage, CalibrationSet
from mdpose_edge.calib.select import OCCLUSION_STRATA, PEOPLE_STRATA, SCALE_STRATA, stratum_of
from mdpose_edge.common.progress import Progress
from mdpose_edge.draw import contact_sheet

SHEET_IMAGES, SHEET_COLUMNS, SHEET_CELL_WH = 48, 8, (184, 184)
QUANTILES = {"lowest": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "highest": 1.0}


def calibration_statistics(calibration: CalibrationSet, progress: Progress | None = None) -> dict[str, Any]:
    """Sum up a set.

    Args:
        calibration: the set.
        progress: called after each image.

    Returns:
        Ready for json.dump: what the record says of the whole; under "people", "scale" and "occlusion" the number of
        images in each stratum, or None where there are no annotations; under "brightness" and "contrast" (mean and
        standard deviation of the grey levels of an input, 0 to 255, padding included) their QUANTILES over the images.
    """
    record = calibration.record
    traits = [image.traits for image in record.images if image.traits is not None]
    light = _light(calibration, progress)
    spread = {
        name: dict(zip(QUANTILES, np.quantile(light[:, i], list(QUANTILES.values())).round(1).tolist(), strict=True))
        for i, name in enumerate(("brightness", "contrast"))
    }
    return {
        "images": len(calibration),
        "digest": record.digest,
        "source": record.source,
        "seed": record.seed,
        "input": asdict(record.input),
        "skipped": [asdict(image) for image in record.skipped],
        "duplicates": record.duplicates,
        "people": _histogram([t.people for t in traits], PEOPLE_STRATA),
        "scale": _histogram([t.scale for t in traits], SCALE_STRATA),
        "occlusion": _histogram([t.occlusion for t in traits], OCCLUSION_STRATA),
        **spread,
    }


def calibration_sheet(calibration: CalibrationSet) -> NDArray[np.uint8]:
    """Draw inputs of a set as the network sees them, with their person counts where these are known.

    Sets are drawn so that every beginning is a sample of the whole; hence the first SHEET_IMAGES.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    images = calibration.record.images[:SHEET_IMAGES]
    inputs = [np.array(row) for row in calibration.inputs[:SHEET_IMAGES]]
    return contact_sheet(inputs, SHEET_COLUMNS, SHEET_CELL_WH, [_title(image) for image in images])


def _title(image: CalibrationImage) -> str:
    stem = Path(image.name).stem
    return stem if image.traits is None else f"{stem}, people: {image.traits.people}"


def _light(calibration: CalibrationSet, progress: Progress | None) -> NDArray[np.float64]:
    """Measure (N, 2): mean and standard deviation of the grey levels of each input."""
    light = np.empty((len(calibration), 2))
    for index, image in enumerate(calibration):
        mean, deviation = cv2.meanStdDev(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        light[index] = mean.item(), deviation.item()
        if progress is not None:
            progress(index + 1, len(calibration))
    return light


def _histogram(values: Sequence[float | None], strata: Mapping[str, float]) -> dict[str, int] | None:
    """Count images by stratum, those with nothing to measure left out; None for a set without annotations."""
    if not values:
        return None
    counts = Counter(stratum_of(value, strata) for value in values if value is not None)
    return {name: counts[index] for index, name in enumerate(strata)}
