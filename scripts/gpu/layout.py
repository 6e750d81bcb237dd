"""What prepare.py writes and prove_tensorrt.py reads: the names in the folder that travels."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

MANIFEST = "manifest.json"
"""What was prepared, and the sha256 of every file."""
DATA = "data"
"""COCO layout: the split val, for accuracy."""
REFERENCE_RESULTS, REFERENCE_FIGURES = "reference/results.json", "reference/figures.json"
"""What onnxruntime found in it with the float graph."""
CONFORMANCE = "conformance"
"""The conformance suite's bundles, and what its network gives, recorded: there is no torch beside TensorRT there."""
CONFORMANCE_FAMILY = "mdpose"
"""Whose network the suite runs on a GPU: what it asks of an engine does not depend on the family."""
RECORDED_HEADS, RECORDED_POSES = "heads.npz", "poses.npz"
NETWORK = "network.json"
"""The float graph without its weights: torch_worker.py rebuilds it, so that the other Python needs torch alone."""
REPORT = "prove.json"
BATCHES = (1, 8)


class Engine(NamedTuple):
    """One engine to build."""

    precision: str
    batch: int

    @property
    def name(self) -> str:
        """Tells it from the others."""
        return f"{self.precision}-{self.batch}"

    @property
    def folder(self) -> str:
        """Its bundle's folder."""
        return f"bundles/{self.name}"


ENGINES = tuple(Engine(precision, batch) for precision in ("fp16", "int8") for batch in BATCHES)


def array_key(data: bytes) -> str:
    """Name a recorded answer by what was asked."""
    return hashlib.sha256(data).hexdigest()[:16]
