"""Which version of TensorRT has which name: tests/goldens/tensorrt_names.tsv, read from NVIDIA's own bindings."""

from __future__ import annotations

from pathlib import Path

from mdpose_edge.trt.platforms import Version, parse_version

NAMES_FILE = Path(__file__).parents[2] / "goldens" / "tensorrt_names.tsv"


def read_ranges() -> dict[str, list[tuple[Version, Version]]]:
    """Read, for each name, the ranges of versions that have it."""
    ranges = {}
    for line in NAMES_FILE.read_text(encoding="utf-8").splitlines():
        name, text = line.split("\t")
        pairs = [part.strip().replace("v", "").split("..") for part in text.split(",")]
        ranges[name] = [(parse_version(first), parse_version(last)) for first, last in pairs]
    return ranges


def names_of(version: Version) -> set[str]:
    """List the names of a version; the last number does not count."""
    return {
        name
        for name, ranges in read_ranges().items()
        if any(first[:2] <= version[:2] <= last[:2] for first, last in ranges)
    }
