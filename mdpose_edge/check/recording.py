"""Head tensors on file, with the images they belong to: a reference that travels to a device.

One .npz of plain arrays, never pickled: `meta` and `spec` (JSON as bytes), the side files, and for each image its file
and its head tensors. Members are read one image at a time, so that a device needs the memory of one.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdpose_edge.check.images import CheckImage, CheckImages
from mdpose_edge.common.arrays import ARRAY_ERRORS
from mdpose_edge.common.files import open_whole
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.progress import Progress
from mdpose_edge.common.side_files import PREFIX, SideFiles
from mdpose_edge.errors import DataError
from mdpose_edge.spec import ModelSpec

RECORDING_SUFFIX = ".npz"
RECORDING_VERSION = 1
"""Raised when a reader of the previous version would misread the next."""

Heads = Mapping[str, NDArray[np.float32]]
"""One image's head tensors, (channels, rows, columns), by output name."""

_AGAIN = "make it again with mdpose-edge check MODEL --record"


def write_recording(
    path: Path,
    images: CheckImages,
    heads_of: Callable[[CheckImage], Heads],
    spec: ModelSpec,
    meta: Mapping[str, Any],
    progress: Progress | None = None,
    *,
    side: SideFiles | None = None,
) -> None:
    """Write a recording, whole or not at all.

    Args:
        path: a .npz file; replaced where it exists.
        images: to record.
        heads_of: runs the artifact.
        spec: of the artifact.
        meta: what else to keep: the artifact's name and engine.
        progress: called after each image.
        side: the artifact's side files.
    """
    with open_whole(path) as file, zipfile.ZipFile(file, "w") as archive:
        hashes, stated = [], []
        for index in range(len(images)):
            image = images[index]
            hashes.append(image.sha256)
            stated.append(image.stated_wh)
            _put(archive, f"{index}/image", np.frombuffer(image.data, np.uint8))
            for name, tensor in heads_of(image).items():
                _put(archive, f"{index}/{name}", tensor)
            if progress is not None:
                progress(index + 1, len(images))
        about = {
            **meta,
            "recording_version": RECORDING_VERSION,
            "names": [Path(name).name for name in images.names],
            "sha256": hashes,
            "stated_wh": stated,
        }
        for kind, arrays in (side or {}).items():
            for name, array in arrays.items():
                _put(archive, f"{PREFIX}{kind}/{name}", array)
        _put(archive, "spec", np.frombuffer(spec.to_json().encode(), np.uint8))
        _put(archive, "meta", np.frombuffer(json.dumps(about).encode(), np.uint8))


class Recording:
    """A recording, opened.

    Raises:
        DataError: not a recording, of another version, or damaged.
        SpecError: the spec in it is malformed or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self._where = str(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(self._where, expected="a recording", got=str(error), do=_AGAIN) from error
        self.meta = self._json("meta")
        version = self.meta.get("recording_version")
        if version != RECORDING_VERSION:
            expected = f"recording_version {RECORDING_VERSION}"
            raise DataError(self._where, expected=expected, got=str(version), do=_AGAIN)
        self.spec = ModelSpec.from_json(self._array("spec").tobytes().decode(), self._where)
        self._index = {sha256: index for index, sha256 in enumerate(self.meta["sha256"])}

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def images(self, limit: int | None = None) -> CheckImages:
        """Return the images that were recorded, the first so many or all."""
        names = tuple(self.meta["names"][:limit])
        stated = self.meta.get("stated_wh", ())
        return CheckImages(self._where, names, lambda index: self._array(f"{index}/image").tobytes(), stated=stated)

    def side(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Return the artifact's side files."""
        found: dict[str, dict[str, NDArray[np.float32]]] = {}
        for member in sorted(name for name in self._archive.namelist() if name.startswith(PREFIX)):
            kind, _, name = member.removeprefix(PREFIX).removesuffix(".npy").partition("/")
            found.setdefault(kind, {})[name] = self._array(f"{PREFIX}{kind}/{name}")
        return found

    def heads(self, image: CheckImage) -> dict[str, NDArray[np.float32]]:
        """Return the head tensors of an image, found by its file's hash.

        Raises:
            DataError: the image was not recorded, or the recording is damaged.
        """
        index = self._index.get(image.sha256)
        if index is None:
            expected = f"head tensors of {image.name}"
            do = "leave --data out to use the recording's own images, or record these"
            raise DataError(self._where, expected=expected, got=f"{len(self._index)} other images", do=do)
        return {name: self._array(f"{index}/{name}") for name in self.spec.outputs}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            document = parse_json(self._array(name).tobytes())
        except ValueError as error:
            raise DataError(self._where, expected=f"JSON in {name}", got=str(error), do=_AGAIN) from error
        if not isinstance(document, dict):
            raise DataError(self._where, expected=f"an object in {name}", got=str(document)[:60], do=_AGAIN)
        return document

    def _array(self, name: str) -> NDArray[Any]:
        try:
            with self._archive.open(f"{name}.npy") as member:
                array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        except KeyError as error:
            raise DataError(self._where, expected=f"{name} in the recording", got="none", do=_AGAIN) from error
        except (*ARRAY_ERRORS, zipfile.BadZipFile) as error:
            raise DataError(self._where, expected=f"{name}, undamaged", got=str(error), do=_AGAIN) from error
        return array


def _put(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
