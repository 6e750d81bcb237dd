"""What Triton's Python backend runs as model.py: the decode step, with what it imports vendored beside it.

A repository holds a copy of this file. It imports the standard library alone until the vendored files are known to be
the ones that were written, and prefers them to an mdpose_edge that the server may have installed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

VENDORED_FILE = "vendored.json"
"""The module that decodes the model's family, and the sha256 of every vendored file, by its name in this folder."""
SPEC_FILE = "spec.json"


class TritonPythonModel:
    """The name and the methods that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the decoder.

        Args:
            args: Triton's; "model_repository" is this model's folder, "model_version" the folder inside it.

        Raises:
            RuntimeError: a vendored file is missing or was altered.
        """
        folder = Path(args["model_repository"], args["model_version"])
        decoder = verify(folder)
        sys.path.insert(0, str(folder))  # Triton appends the folder, so that an installed package would come first
        from mdpose_edge.common.side_files import read_side_files
        from mdpose_edge.errors import MdposeError
        from mdpose_edge.spec import ModelSpec
        from mdpose_edge.triton.decode_step import DecodeStep

        self._backend: Any = import_module("triton_python_backend_utils")
        self._refusal = MdposeError
        text = (folder / SPEC_FILE).read_text(encoding="utf-8")
        spec = ModelSpec.from_json(text, SPEC_FILE)
        module = import_module(decoder)
        side = (read_side_files(folder, spec.files),) if hasattr(module, "SIDE_FILES") else ()
        self._step = DecodeStep(spec, module.make_decoder(spec, spec.decode, *side))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Decode each request; one that cannot be decoded gets an error of its own, in one sentence.

        Args:
            requests: Triton's, each with one batch of the decode step's inputs.

        Returns:
            One response for each request, in order.
        """
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        backend = self._backend
        tensors = {name: backend.get_input_tensor_by_name(request, name).as_numpy() for name in self._step.input_names}
        try:
            found = self._step(tensors)
        except self._refusal as error:
            return backend.InferenceResponse(output_tensors=[], error=backend.TritonError(str(error)))
        return backend.InferenceResponse(output_tensors=[backend.Tensor(*item) for item in found.items()])


def verify(folder: Path) -> str:
    """Hold the vendored files against their hashes.

    Args:
        folder: where model.py and the vendored files are.

    Returns:
        The name of the module that decodes the model's family.

    Raises:
        RuntimeError: a file is missing or was altered.
    """
    vendored = json.loads((folder / VENDORED_FILE).read_text(encoding="utf-8"))
    for name, sha256 in vendored["files"].items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"
        if found != sha256:
            raise RuntimeError(
                f"{path}: expected sha256 {sha256[:12]}..., got {found[:12]}; write the repository again."
            )
    return str(vendored["decoder"])
