"""Documents so nested that a reader gives up are bad input like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mdpose_edge.bundle import open_bundle
from mdpose_edge.calib.dataset import open_calibration_set
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.outputs import check_outputs
from mdpose_edge.common.yaml_files import load_yaml
from mdpose_edge.datasets.coco import read_annotations
from mdpose_edge.errors import BundleError, CalibrationError, DataError, MdposeError, SpecError
from mdpose_edge.train.config import load_config

DEEP = "[" * 200_000


def test_a_document_is_read_and_what_is_none_is_a_value_error() -> None:
    assert parse_json(b'{"a": [1, 2]}') == {"a": [1, 2]}
    for text in ("", "{", b"\xff\xfe\xff", DEEP, '{"a":' * 200_000):
        with pytest.raises(ValueError):
            parse_json(text)


def test_deep_yaml_is_none() -> None:
    with pytest.raises(yaml.YAMLError, match="nested too deep"):
        load_yaml(yaml, DEEP)


def test_every_reader_refuses_a_deep_document_in_its_own_words(tmp_path: Path) -> None:
    for name in ("spec.json", "calib.json", "a.json", "a.yaml"):
        (tmp_path / name).write_text(DEEP)
    readers = {
        lambda: read_annotations(tmp_path / "a.json"): DataError,
        lambda: open_bundle(tmp_path): (BundleError, SpecError),
        lambda: open_calibration_set(tmp_path): CalibrationError,
        lambda: load_config(tmp_path / "a.yaml"): MdposeError,
    }
    for read, error in readers.items():
        with pytest.raises(error, match="nested too deep"):
            read()
    check_outputs({"--json": tmp_path / "figures.json"}, [])
