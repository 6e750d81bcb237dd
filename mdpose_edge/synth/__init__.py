"""Synthetic people in COCO layout: what the demo, the tests and the benchmarks run on when there is no COCO.

In order: `body` poses a skeleton, `wardrobe` dresses it in solids, `props` adds furniture, `scene` places everything
before a camera, `raster` finds the nearest surface in each pixel, `shade` colours it over `backdrop`, `dataset` writes.
`gait` moves them, and `video` writes that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdpose_edge.synth.dataset import write_dataset
    from mdpose_edge.synth.scene import Scene, render_scene
    from mdpose_edge.synth.video import write_video

__all__ = ["Scene", "render_scene", "write_dataset", "write_video"]

_HOME = {"Scene": "scene", "render_scene": "scene", "write_dataset": "dataset", "write_video": "video"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
