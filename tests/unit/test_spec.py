import dataclasses
import json
import math

import pytest

from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import ConfigError, SpecError
from mdpose_edge.families.mdpose.heads import mdpose_spec, pyramid
from mdpose_edge.spec import (
    COCO_KEYPOINTS,
    SPEC_VERSION,
    HeadSpec,
    InputSpec,
    ModelSpec,
)


def _spec(**changes):
    spec = mdpose_spec(InputSpec(height=736, width=736), network={"backbone": "dla34"})
    return dataclasses.replace(spec, **changes)


def _changed(path, value):
    data = json.loads(_spec().to_json())
    *parents, last = path.split(".")
    table = data
    for key in parents:
        table = table[key]
    table[last] = value
    return json.dumps(data)


def _without(path):
    data = json.loads(_spec().to_json())
    *parents, last = path.split(".")
    table = data
    for key in parents:
        table = table[key]
    del table[last]
    return json.dumps(data)


def test_a_spec_survives_json():
    spec = _spec(files={"model.onnx": "ab" * 32}, quantization={"scheme": "qdq"}, precision="int8")
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_levels_as_in_the_paper():
    assert [(level.stride, level.scale) for level in pyramid()] == [(8, 2**-4), (16, 2**-3), (32, 2**-2)]
    spec = _spec()
    assert sum(math.prod(spec.head_shape(head)) for head in spec.heads if head.name.startswith("o_")) == 11_109
    assert spec.outputs[:4] == ("o_p3", "mu_p3", "gamma_p3", "o_p4")
    assert [head.channels for head in spec.heads[:3]] == [1, 34, 34]


def test_a_tensor_without_a_stride_has_one_cell():
    spec = _spec(heads=(HeadSpec("stop", 4, None),))
    assert spec.head_shape(spec.heads[0]) == (4, 1, 1)


def test_version_1_is_read():
    spec = _spec(target="onnx", opset=17)
    data = json.loads(spec.to_json())
    constants = data.pop("constants")
    old = {k: v for k, v in data.items() if k not in ("heads", "classes", "dimensions")}
    old |= {**constants, "outputs": list(spec.outputs), "spec_version": 1}
    assert ModelSpec.from_json(json.dumps(old)) == spec
    del old["levels"]
    with pytest.raises(SpecError, match="bundle: expected the keys of spec_version 1, got no 'levels'; "):
        ModelSpec.from_json(json.dumps(old), "bundle")


def test_version_2_is_read():
    spec = _spec(target="onnx", opset=17)
    old = json.loads(spec.to_json())
    del old["provenance"]["imported"]
    assert ModelSpec.from_json(json.dumps(old | {"spec_version": 2})) == spec
    with pytest.raises(SpecError, match=r"bundle: expected the key provenance.imported, got none"):
        ModelSpec.from_json(json.dumps(old), "bundle")


def test_coco_keypoints_pair_up():
    mirrored = {
        name: name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
        for name in COCO_KEYPOINTS.names
    }
    for left, right in COCO_KEYPOINTS.flip_pairs:
        assert mirrored[COCO_KEYPOINTS.names[left]] == COCO_KEYPOINTS.names[right]


@pytest.mark.parametrize(
    "path",
    ["family", "input", "input.resize", "decode", "decode.pre_nms", "provenance.accuracy", "files", "quantization"],
)
def test_a_missing_key_is_an_error_even_where_it_has_a_default(path):
    with pytest.raises(SpecError, match=f"^bundle/spec.json: expected the key {path}, got none"):
        ModelSpec.from_json(_without(path), "bundle/spec.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "BGR", "the unknown key colour"),
        ("input.scale", 2, "the unknown key input.scale"),
        ("input.height", "736", "a whole number at input.height, got '736'"),
        ("input.height", True, "a whole number at input.height, got True"),
        ("input.height", 0, "input.height: expected a whole number of at least 1, got 0"),
        ("input.height", 730, "a multiple of the stride 8 of o_p3, got 730"),
        ("input.resize", "crop", "one of stretch, letterbox at input.resize, got 'crop'"),
        ("input.mean", [1.0, 2.0], "a list of 3 at input.mean"),
        ("decode.nms_threshold", 1.5, r"decode.nms_threshold: expected a number in \[0, 1\], got 1.5"),
        ("heads", [], "heads: expected at least one head tensor"),
        ("classes", [], "classes: expected at least one class"),
        ("heads", 3, "a list at heads"),
        ("dimensions", 4, "one of 2, 3 at dimensions, got 4"),
        ("keypoints.sigmas", [0.1], "keypoints.sigmas: expected 17 values, got 1"),
        ("keypoints.flip_pairs", [[0, 99]], r"keypoints.flip_pairs: expected indices below 17, got \(0, 99\)"),
        ("provenance", None, "a table at provenance"),
        ("files", [], "a table at files"),
        ("spec_version", SPEC_VERSION + 1, f"expected spec_version {SPEC_VERSION}, got {SPEC_VERSION + 1}; update"),
        ("spec_version", None, "got None"),
        ("spec_version", [], r"got \[\]"),
        ("spec_version", {}, r"got \{\}"),
        ("spec_version", True, "got True"),
        ("spec_version", 1.0, r"got 1\.0"),
        ("spec_version", float(SPEC_VERSION), rf"got {SPEC_VERSION}\.0"),
    ],
)
def test_a_wrong_value_is_an_error_in_the_words_of_its_key(path, value, message):
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_json(_changed(path, value))


def test_a_stride_of_zero_is_refused() -> None:
    with pytest.raises(SpecError, match="stride of o_p3: expected a whole number of at least 1, got 0"):
        HeadSpec("o_p3", 1, 0)


@pytest.mark.parametrize("text", ['{"family": "mdp', "[]", ""], ids=["truncated", "a list", "empty"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(SpecError, match="expected"):
        ModelSpec.from_json(text)


@dataclasses.dataclass(frozen=True)
class _Inner:
    size: int = 1


@dataclasses.dataclass(frozen=True)
class _Outer:
    inner: _Inner = dataclasses.field(default_factory=_Inner)
    rate: float = 0.5


def test_defaults_may_fill_a_configuration_but_not_hide_an_unknown_key():
    assert read_dataclass(_Outer, {"rate": 1}, where="x", error=ConfigError, defaults=True) == _Outer(rate=1.0)
    with pytest.raises(ConfigError, match=r"the unknown key inner\.sise"):
        read_dataclass(_Outer, {"inner": {"sise": 2}}, where="x", error=ConfigError, defaults=True)
