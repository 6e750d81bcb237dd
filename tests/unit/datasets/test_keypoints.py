"""Keypoint sets: the public ones hold together, a file is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdpose_edge.datasets.keypoints import KEYPOINT_SETS, keypoint_set, without_partner
from mdpose_edge.errors import ConfigError
from mdpose_edge.spec import COCO_KEYPOINTS

HAND = """
names: [wrist, left_tip, right_tip]
flips: [[left_tip, right_tip]]
skeleton: [[wrist, left_tip], [wrist, right_tip]]
sigmas: [0.05, 0.1, 0.1]
"""


@pytest.mark.parametrize(("name", "count"), [("coco17", 17), ("crowdpose14", 14), ("ochuman19", 19)])
def test_public_sets_pair_each_left_with_its_right_and_agree_with_coco(name: str, count: int) -> None:
    spec = KEYPOINT_SETS[name]
    assert len(spec.names) == len(set(spec.names)) == count
    sided = {n for n in spec.names if n.startswith(("left_", "right_"))}
    assert {spec.names[i] for pair in spec.flip_pairs for i in pair} == sided
    for left, right in spec.flip_pairs:
        assert spec.names[left].replace("left", "right") == spec.names[right]
        assert spec.sigmas[left] == spec.sigmas[right]
    coco = dict(zip(COCO_KEYPOINTS.names, COCO_KEYPOINTS.sigmas, strict=True))
    assert all(coco.get(n, 0.079) == sigma for n, sigma in zip(spec.names, spec.sigmas, strict=True))
    mirror = {i: j for pair in spec.flip_pairs for i, j in (pair, pair[::-1])}
    limbs = {frozenset(limb) for limb in spec.skeleton}
    assert {frozenset(mirror.get(i, i) for i in limb) for limb in limbs} == limbs


def test_a_file_becomes_a_set(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(HAND)
    spec = keypoint_set(path)
    assert spec.names == ("wrist", "left_tip", "right_tip")
    assert (spec.flip_pairs, spec.skeleton, spec.sigmas) == (((1, 2),), ((0, 1), (0, 2)), (0.05, 0.1, 0.1))


BAD = {
    "unknown key": (HAND + "colour: red", "unknown key colour"),
    "no sigmas": (HAND.replace("sigmas: [0.05, 0.1, 0.1]", ""), "the key sigmas"),
    "a sigma short": (HAND.replace("0.05, ", ""), "3 sigmas above 0"),
    "sigma of zero": (HAND.replace("0.05", "0"), "3 sigmas above 0"),
    "a name twice": (HAND.replace("wrist, left", "left_tip, left"), "names that differ"),
    "no names": ("{names: [], flips: [], skeleton: [], sigmas: []}", "names that differ"),
    "a flip of a stranger": (HAND.replace("[[left_tip,", "[[left_toe,"), "under flips, got left_toe"),
    "a limb to a stranger": (HAND.replace("[wrist, right_tip]", "[wrist, toe]"), "under skeleton, got toe"),
    "a flip with itself": (HAND.replace("[[left_tip, right_tip]]", "[[left_tip, left_tip]]"), "left_tip in two places"),
    "a left without its right in flips": (
        HAND.replace("[[left_tip, right_tip]]", "[]"),
        r"\[left_tip, right_tip\] under",
    ),
    "a left with another": (HAND.replace("[[left_tip, right_tip]]", "[[left_tip, wrist]]"), "under flips, got no such"),
    "a flip of three": (HAND.replace("[[left_tip, right_tip]]", "[[left_tip, right_tip, wrist]]"), "a list of 2"),
    "not YAML": ("names: [", "expected YAML"),
    "a list": ("[1, 2]", "a table at the top"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        keypoint_set(path)
    assert str(path) in str(caught.value)


def test_only_a_side_without_its_flip_is_without_a_partner(tmp_path: Path) -> None:
    path = tmp_path / "hand.yaml"
    path.write_text(HAND)
    assert without_partner(keypoint_set(path)) == ()
    path.write_text(HAND.replace("left_tip", "left_nail"))  # paired, if by another name
    assert without_partner(keypoint_set(path)) == ()
    path.write_text("{names: [wrist, left_tip], flips: [], skeleton: [], sigmas: [0.05, 0.1]}")
    assert without_partner(keypoint_set(path)) == ("left_tip",)


def test_a_folder_is_refused_as_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a keypoint file, .*, got a folder"):
        keypoint_set(tmp_path)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="coco17, crowdpose14, ochuman19, mupots17, panoptic19, got no such file"):
        keypoint_set("coco18")
