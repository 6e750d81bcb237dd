"""What goes together in an export, for Python as for the command line."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from mdpose_edge.errors import ConfigError, ExportError, MdposeError
from mdpose_edge.export.options import ExportOptions

INT8 = {"precision": "int8", "calib": "CALIB"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "onxx"}, ExportError, "--target: expected one of onnx, openvino, tensorrt, jetson, triton, got"),
        ({"target": "onnx", "precision": "fp8"}, ExportError, "--precision: expected one of fp32, fp16, int8, got fp8"),
        ({"target": "onnx", "max_drop": 0.0}, ConfigError, "--max-drop: expected validation data, got none; pass"),
        (
            {"target": "onnx", "report": "page", "val_limit": 3}, ConfigError,
            "--report, --val-limit: expected validation data, got none; pass --val-data DIR, or leave them out",
        ),
        ({"target": "onnx", "val_format": "coco"}, ConfigError, "--val-format: expected validation data"),
        ({"target": "onnx", "allow_few": True}, ConfigError, "--allow-few: expected a calibration set, got none; pass"),
        (
            {"target": "onnx", "precision": "int8", "keep_float": ["a"]}, ConfigError,
            "--keep-float: expected a calibration set, got none; pass --calib CALIB, or leave it out",
        ),
        ({"target": "onnx", "precision": "int8"}, ExportError, "--precision int8: expected a calibration set, got"),
        ({"target": "onnx", "calib": "CALIB"}, ExportError, "--calib: expected --precision int8 with a calib"),
        (
            {"target": "openvino", **INT8, "calib_method": "entropy"}, ConfigError,
            "--calib-method: expected one of min-max, percentile, mse, got entropy",
        ),
        ({"target": "triton", "batch": 2}, ConfigError, "--batch: expected none: Triton batches by itself, got 2"),
        ({"target": "triton", "trt": "10.3"}, ConfigError, "--trt: expected --target tensorrt or jetson, got"),
        ({"target": "onnx", "nvdla": 0}, ConfigError, "--nvdla: expected --target jetson, got --target onnx"),
        ({"target": "tensorrt", "device": "thor"}, ExportError, "--device: expected --target jetson, got"),
        ({"target": "jetson", "nvdla": 0}, ExportError, "--nvdla: expected a device with an NVDLA core, got Jetson"),
        (
            {"target": "onnx", "val_data": "DIR", "max_drop": -1.0}, ConfigError,
            "--max-drop: expected AP points, 0 or more, got -1.0",
        ),
        (
            {"target": "tensorrt", "trt": "8.5", "val_data": "DIR"}, ExportError,
            "--val-data with --target tensorrt --precision fp16: expected a graph that states its precision",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told_as_it_is_typed(
    options: dict[str, Any], error: type[MdposeError], message: str
) -> None:
    with pytest.raises(error) as caught:
        ExportOptions(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("target", "precision", "bundle"),
    [
        ("onnx", "fp32", "onnx"),
        ("openvino", "fp32", "openvino"),
        ("tensorrt", "fp16", "tensorrt"),
        ("jetson", "fp16", "jetson"),
        ("triton", "fp32", "onnx"),
    ],
)
def test_a_target_has_a_precision_of_its_own(target: str, precision: str, bundle: str) -> None:
    options = ExportOptions(target)
    assert (options.chosen_precision, options.bundle_target) == (precision, bundle)
    assert ExportOptions(target, "fp32").chosen_precision == "fp32"
    assert (options.tensorrt is not None) == (target in ("tensorrt", "jetson"))


def test_zero_is_a_value_and_an_empty_list_is_none() -> None:
    options = ExportOptions("onnx", keep_float=[], val_data="DIR", max_drop=0.0)
    assert options.validation is not None
    assert options.validation.limits.accuracy.max_drop == 0.0
