"""Bundles with one thing wrong, and data to catch them on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle, write_bundle
from tests.unit.tiny_coco import HEIGHT, WIDTH, document, person, write_split

Edit = Callable[[Any], None]
IMAGE_IDS = (7, 3, 5)


def write_data(folder: Path) -> Path:
    """Write a split of pictures that differ, in a landscape format, so that resize policies differ too."""
    write_split(folder, document([person(7), person(7, x=20, side=60), person(3), person(5, x=30)], IMAGE_IDS))
    random = np.random.default_rng(0)
    for image_id in IMAGE_IDS:
        coarse = 255 * np.eye(3, dtype=np.uint8)[random.integers(0, 3, (6, 8))]  # pure colours
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / "val2017" / f"{image_id:012d}.jpg"), picture)
    return folder


def edited_bundle(source: Path, out: Path, edit: Edit = lambda model: None, **spec_changes: Any) -> Path:
    """Copy an ONNX bundle with its graph or spec changed, the hashes being right."""
    onnx = pytest.importorskip("onnx")
    bundle = open_bundle(source)
    model = onnx.load(str(bundle.graph))
    edit(model)
    with write_bundle(out, dataclasses.replace(bundle.spec, **spec_changes)) as directory:
        onnx.save(model, str(directory / bundle.graph.name))
    return out


def scale_outputs(kind: str, factor: float) -> Edit:
    """Multiply the head tensors of a kind: 0 makes them constant."""

    def edit(model: Any) -> None:
        from onnx import helper, numpy_helper

        for node in list(model.graph.node):
            for position, name in enumerate(node.output):
                if name.startswith(f"{kind}_p"):
                    node.output[position] = f"{name}_before"
                    constant = numpy_helper.from_array(np.float32(factor), f"{name}_factor")
                    model.graph.initializer.append(constant)
                    model.graph.node.append(helper.make_node("Mul", [f"{name}_before", constant.name], [name]))

    return edit


def swap_colours(model: Any) -> None:
    """Let the first convolution take red for blue."""
    _replace_weights(model, lambda name, values: values[:, ::-1] if values.shape[1:2] == (3,) else values)


def scale_one_layer(factor: float) -> Edit:
    """Multiply the weights of one convolution in the middle."""

    def edit(model: Any) -> None:
        names = [tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4]
        chosen = names[len(names) // 2]
        _replace_weights(model, lambda name, values: values * np.float32(factor) if name == chosen else values)

    return edit


def _replace_weights(model: Any, change: Callable[[str, Any], Any]) -> None:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            values = np.ascontiguousarray(change(tensor.name, numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
