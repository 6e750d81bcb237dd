"""Make the checkpoint that `mdpose-edge demo` starts from: draw people, train DLA-34 in three stages, pack the weights.

    .venv/bin/python scripts/demo_checkpoint.py runs/demo_checkpoint

takes about two hours on 2 cores and may be stopped and started again. The result, under 20 MB, goes to
mdpose_edge/assets/; docs/model-card.md says what it can do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mdpose_edge.checkpoint import read_checkpoint, save_checkpoint, to_int8
from mdpose_edge.demo import SCENE_PX, START_CHECKPOINT, VARIETY
from mdpose_edge.synth import write_dataset
from mdpose_edge.train.config import load_config
from mdpose_edge.train.loop import MODEL_FILE, RESUME_FILE, Progress, train

CONFIGS = Path(__file__).parents[1] / "configs"
STAGES = ("dla34_synth_128", "dla34_synth_192", "dla34_synth_192_long")
"""From scratch where pictures are cheap, then at the size of the demo. Each starts from packed weights."""
TRAIN_IMAGES, VAL_IMAGES = 16_000, 300
PEOPLE, OCCLUSION = (1, 3), 0.1
SEED = 1
"""Of the drawn people; the demo draws its own with another seed."""


def main() -> None:
    """Draw, train and pack; each step is skipped where it is already done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the data and the runs")
    out = parser.parse_args().out
    data = out / "data"
    if not data.exists():
        write_dataset(
            data,
            train_images=TRAIN_IMAGES,
            val_images=VAL_IMAGES,
            size=SCENE_PX,
            seed=SEED,
            people=PEOPLE,
            occlusion=OCCLUSION,
            variety=VARIETY,
            workers=2,
        )
    packed = None
    for stage in STAGES:
        packed = _train(stage, data, out / stage, packed)
    assert packed is not None
    START_CHECKPOINT.write_bytes(packed.read_bytes())
    print(f"{START_CHECKPOINT}: {START_CHECKPOINT.stat().st_size / 1e6:.1f} MB")


def _train(stage: str, data: Path, run: Path, start: Path | None) -> Path:
    """Train one stage, unless that is done; give its packed weights."""
    packed = run / "packed.safetensors"
    if not packed.exists():
        overrides = [f"init={start}"] if start else []
        config = load_config(CONFIGS / f"{stage}.yaml", overrides)
        if not (run / MODEL_FILE).exists():
            train(config, data, run, resume=(run / RESUME_FILE).exists(), report=_show)
        checkpoint = read_checkpoint(run / MODEL_FILE)
        save_checkpoint(packed, checkpoint.spec, to_int8(checkpoint.weights))
    return packed


def _show(step: Progress) -> None:
    if step.iteration % 100 == 0:
        print(f"{step.iteration}/{step.iterations}: loss {step.loss:.3f}, {step.images_per_s:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
