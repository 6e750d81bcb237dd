"""What a command said and wrote, as values that can be compared with another run's."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
from safetensors.numpy import load_file

from tests.campaign.child import Result

Values = dict[str, Any]
"""By where they stand: a file, and the way into it."""


def values_of(result: Result, folder: Path) -> Values:
    """Return the exit code, the lines of stdout, and what stands in every file below `folder`/out, by place.

    Paths of the folder are taken as relative to it.
    """
    values: Values = {"exit code": result.code}
    here = f"{folder}/"
    values |= {
        f"stdout {at}": line.replace(here, "").replace("./", "") for at, line in enumerate(result.out.splitlines())
    }
    for path in sorted((folder / "out").rglob("*")):
        name = str(path.relative_to(folder))
        values[name] = "folder" if path.is_dir() else "file"
        if path.is_file():
            values |= {f"{name} {where}": value for where, value in _leaves(_content(path, here))}
    return values


def _content(path: Path, here: str) -> Any:
    """Return what a file says, whatever way it is written down; nothing of pages and of binary files of engines."""
    read = {
        ".json": lambda: json.loads(_text(path, here)),
        ".jsonl": lambda: [json.loads(line) for line in _text(path, here).splitlines()],
        ".csv": lambda: list(csv.DictReader(_text(path, here).splitlines())),
        ".txt": lambda: _text(path, here),
        ".yaml": lambda: _text(path, here),
        ".png": lambda: _digest(cv2.imread(str(path))),
        ".jpg": lambda: _digest(cv2.imread(str(path))),
        ".bmp": lambda: _digest(cv2.imread(str(path))),
        ".mp4": lambda: _frames(path),
        ".onnx": lambda: _constants(path),
        ".safetensors": lambda: {name: _digest(array) for name, array in load_file(path).items()},
        ".npz": lambda: {name: _digest(array) for name, array in np.load(path).items()},
    }
    return read.get(path.suffix, dict)()


def _text(path: Path, here: str) -> str:
    return path.read_text(encoding="utf-8").replace(here, "").replace("./", "")


def _digest(array: Any) -> int:
    return hash((array.shape, str(array.dtype), np.ascontiguousarray(array).tobytes()))


def _frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [_digest(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def _constants(path: Path) -> dict[str, int]:
    constants = onnx.load(path).graph.initializer
    return {constant.name: _digest(onnx.numpy_helper.to_array(constant)) for constant in constants}


def _leaves(content: Any, where: str = "") -> list[tuple[str, Any]]:
    if isinstance(content, dict):
        return [leaf for key, value in content.items() for leaf in _leaves(value, f"{where}.{key}")]
    if isinstance(content, list):
        return [leaf for at, value in enumerate(content) for leaf in _leaves(value, f"{where}[{at}]")]
    return [(where, content)]
