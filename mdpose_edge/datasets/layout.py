"""Which annotation file of a folder is meant, and whose format it has. Nothing is guessed: two formats are an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS, MUPOTS_KEYPOINTS, keypoint_set
from mdpose_edge.errors import ConfigError, DataError
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS, KeypointSpec

BOX_FORMAT = "instances"
"""COCO's boxes of any categories, without keypoints."""
FORMATS = ("coco", "crowdpose", "ochuman", "mupots", "panoptic", BOX_FORMAT)
"""By the names that --format takes."""

_PATTERNS = {
    "coco": (("annotations/person_keypoints_{split}2017.json", "{split}2017"),),
    "crowdpose": (
        ("json/crowdpose_{split}.json", "images"),
        ("annotations/crowdpose_{split}.json", "images"),
        ("annotations/mmpose_crowdpose_{split}.json", "images"),
    ),
    "ochuman": (
        ("ochuman_coco_format_{split}_range_0.00_1.00.json", "images"),
        ("annotations/ochuman_coco_format_{split}_range_0.00_1.00.json", "images"),
        ("ochuman.json", "images"),
        ("annotations/ochuman.json", "images"),
    ),
    "mupots": (("MuPoTS-3D.json", "MultiPersonTestSet"),),
    "panoptic": (("calibration_{sequence}.json", "hdImgs/{split}"),),
    BOX_FORMAT: (("annotations/instances_{split}2017.json", "{split}2017"),),
}
"""By format: annotation files as they are handed out and as they are usually stored, and the folder of their images."""
_MAPPED = "ochuman_coco_format"
"""How the names of OCHuman's files begin that are mapped to COCO's 17 keypoints already."""


@dataclass(frozen=True)
class Located:
    """A split's files."""

    format: str
    annotation_file: Path
    image_dir: Path

    def default_keypoints(self) -> KeypointSpec:
        """Return what this format is trained on: OCHuman and Panoptic by COCO's 17 of their 19."""
        own = {"crowdpose": CROWDPOSE_KEYPOINTS, "mupots": MUPOTS_KEYPOINTS, BOX_FORMAT: NO_KEYPOINTS}
        return own.get(self.format, COCO_KEYPOINTS)


def locate(data_dir: str | Path, split: str, data_format: str | None = None, *, boxes: bool = False) -> Located:
    """Find the annotation file of a split.

    A folder of COCO's has files of keypoints and of boxes side by side: what is wanted is taken, else the other.

    Args:
        data_dir: the dataset's folder.
        split: "train", "val", "test", "trainval".
        data_format: one of FORMATS, or None to take the only one that has a file there.
        boxes: what is wanted is boxes of any categories, rather than keypoints.

    Raises:
        ConfigError: no such format.
        DataError: files of several formats and none chosen, or no file.
    """
    if data_format is not None and data_format not in FORMATS:
        raise ConfigError(
            "--format", expected=f"one of {', '.join(FORMATS)}", got=data_format, do="choose one of these"
        )
    formats = FORMATS if data_format is None else (data_format,)
    candidates = [_candidate(Path(data_dir), split, name, *pair) for name in formats for pair in _PATTERNS[name]]
    found = [candidate for candidate in candidates if candidate.annotation_file.is_file()]
    wanted = [candidate for candidate in found if (candidate.format == BOX_FORMAT) == boxes]
    found = wanted or found
    kinds = list(dict.fromkeys(candidate.format for candidate in found))
    if len(kinds) > 1:
        raise DataError(str(data_dir), expected="one format", got=" and ".join(kinds), do="choose with --format")
    # OCHuman's own file and the one mapped to COCO stand side by side as downloaded; the list has the mapped one first.
    return found[0] if found else _nothing(Path(data_dir), candidates[::-1] if boxes else candidates)


def is_dataset(data_dir: str | Path) -> bool:
    """Say whether a folder is laid out as a dataset of any known format and split, rather than as plain images."""
    folder = Path(data_dir)
    names = [file.format(split="*", sequence="*") for pairs in _PATTERNS.values() for file, _ in pairs]
    return (folder / "annotations").is_dir() or any(any(folder.glob(name)) for name in names)


def training_keypoints(
    data_dir: str | Path, split: str, data_format: str | None, keypoints: str | None
) -> KeypointSpec:
    """Return the keypoints that a training on a split is for.

    Args:
        data_dir: the dataset's folder.
        split: as for `locate`.
        data_format: likewise.
        keypoints: a set's name or YAML file, or None for the format's own.
    """
    if keypoints is not None:
        return keypoint_set(keypoints)
    return locate(data_dir, split, data_format).default_keypoints()


def is_mapped(located: Located) -> bool:
    """Say whether an OCHuman file is mapped to COCO's form already."""
    return located.annotation_file.name.startswith(_MAPPED)


def _candidate(data_dir: Path, split: str, name: str, file: str, images: str) -> Located:
    words = {"split": split, "sequence": data_dir.resolve().name}
    return Located(name, data_dir / file.format(**words), data_dir / images.format(**words))


def _nothing(data_dir: Path, candidates: list[Located]) -> Located:
    if candidates[0].format in ("coco", BOX_FORMAT):
        return candidates[0]  # whose reader says what is missing, in COCO's words
    looked = " or ".join(str(candidate.annotation_file.relative_to(data_dir)) for candidate in candidates)
    do = "correct the folder, the split or --format"
    raise DataError(str(data_dir), expected=looked, got="no such file", do=do)
