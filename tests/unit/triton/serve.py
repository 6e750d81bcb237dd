"""Stands in for Triton's Python backend: runs a repository's model.py on requests from a file.

    python -I serve.py MODEL_FOLDER REQUESTS.npz ANSWERS.npz

`triton_python_backend_utils` exists only inside a server; the module below has the part of its documented interface
that model.py uses. Keys of both files are "<request>/<tensor>"; an answer may be "<request>/error" instead.
Prints where the mdpose_edge in use came from, and which packages of a full installation were loaded.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

BLOCKED = ("cv2", "typer", "typing_extensions", "onnx", "torch")
"""A stock server has none of these."""


class Tensor:
    def __init__(self, name, array):
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class TritonError(Exception):
    pass


class InferenceResponse:
    def __init__(self, output_tensors=None, error=None):
        self.output_tensors, self.error = output_tensors or [], error


def get_input_tensor_by_name(request, name):
    return request.get(name)


def main() -> None:
    model_folder, requests_file, answers_file = map(Path, sys.argv[1:])
    sys.modules.update(dict.fromkeys(BLOCKED))
    backend = types.ModuleType("triton_python_backend_utils")
    for thing in (Tensor, TritonError, InferenceResponse, get_input_tensor_by_name):
        setattr(backend, thing.__name__, thing)
    sys.modules[backend.__name__] = backend
    spec = importlib.util.spec_from_file_location("model", model_folder / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(model_folder), "model_version": "1", "model_name": model_folder.name})
    requests: dict[str, dict[str, Tensor]] = {}
    with np.load(requests_file) as arrays:
        for key, array in arrays.items():
            number, name = key.split("/")
            requests.setdefault(number, {})[name] = Tensor(name, array)
    answers = {}
    for number, response in zip(requests, model.execute(list(requests.values())), strict=True):
        if response.error is not None:
            answers[f"{number}/error"] = np.array(str(response.error))
        for tensor in response.output_tensors:
            answers[f"{number}/{tensor.name()}"] = tensor.as_numpy()
    np.savez(answers_file, **answers)
    print(sys.modules["mdpose_edge"].__file__)


if __name__ == "__main__":
    main()
