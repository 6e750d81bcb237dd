"""The INT8 form of a shipped model: its ranges and its gate are measured on people who are drawn for it.

A photo set that every installation has does not exist, and the shipped models have seen drawn people in training. The
gate's verdict is one on these pictures; what INT8 does to photographs is measured in the model's card.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.common.progress import Progress, in_stage, no_progress
from mdpose_edge.export.bundle import Exported, export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.shipped import source_path
from mdpose_edge.synth import write_dataset

CALIBRATION_IMAGES, GATE_IMAGES = 128, 128
SCENE_PX, PEOPLE, OCCLUSION, VARIETY, SEED = 320, (1, 6), 0.3, 0.8, 15
"""As the drawn pictures that the model for photographs was trained on, but of another seed."""


def export_shipped_int8(
    name: str, out: str | Path, target: str, *, report: str | Path | None = None, progress: Progress | None = None
) -> Exported:
    """Export a shipped model in INT8, if the gate holds.

    Args:
        name: of the INT8 form, like "people-int8".
        out: the bundle's directory; an earlier bundle there is replaced.
        target: see `ExportOptions`.
        report: a folder for the gate's page, written whether it holds or not.
        progress: called as drawing, preprocessing and the export go on.

    Raises:
        GateError: it fell short of the float model; no bundle is left.
        MdposeError: it cannot be exported; see `export_checkpoint`.
    """
    show = progress or no_progress
    with TemporaryDirectory() as folder:
        data, calibration = Path(folder, "drawn people"), Path(folder, "calibration")
        write_dataset(
            data,
            train_images=CALIBRATION_IMAGES,
            val_images=GATE_IMAGES,
            size=SCENE_PX,
            seed=SEED,
            people=PEOPLE,
            occlusion=OCCLUSION,
            variety=VARIETY,
            progress=in_stage(show, "drawing people"),
        )
        size = read_model_spec(name).input
        make_calibration_set(data, calibration, size, split="train", num=CALIBRATION_IMAGES)
        options = ExportOptions(target, precision="int8", calib=calibration, val_data=data, report=report)
        return export_checkpoint(source_path(name), out, options, progress=in_stage(show, "exporting"))
