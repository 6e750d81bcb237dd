"""How fast `mdpose-edge synth` draws on one core, JPEG and annotations included.

    python benchmarks/synth.py [--size 320] [--images 200] [--json FILE]

The figure is images per second of processor time, so that other work on the machine does not count; the wall-clock rate
stands beside it.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import cv2

from mdpose_edge.synth import write_dataset


def measure(size: int, images: int, people: tuple[int, int], occlusion: float) -> dict[str, float]:
    """Draw a data set in one process and one thread; give images per second of processor and of wall-clock time."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "warm", train_images=2, val_images=0, size=size, people=people, occlusion=occlusion)
        wall, cpu = time.perf_counter(), time.process_time()
        write_dataset(root / "timed", train_images=images, val_images=0, size=size, people=people, occlusion=occlusion)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"images_per_cpu_second": images / cpu, "images_per_second": images / wall}


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    people, occlusion = (1, 8), 0.2
    rates = measure(options.size, options.images, people, occlusion)
    print(f"{options.size} px, people 1-8, occlusion 0.2, one core, images per second:", end=" ")
    print(
        f"{rates['images_per_cpu_second']:.1f} of processor time, {rates['images_per_second']:.1f} of wall-clock time"
    )
    if options.json:
        setting = {"size": options.size, "images": options.images, "people": list(people), "occlusion": occlusion}
        record = {**setting, **rates, "cpu": platform.processor() or platform.machine(), "opencv": cv2.__version__}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
