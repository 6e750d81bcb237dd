"""What a model for photographs starts from: weights of registries renamed and refitted, data sets put together."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from torch import nn

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.spec import InputSpec
from scripts.backbone_weights import neutral_norms, pairs, read_graph_model, to_house_input
from scripts.people_data import merge
from tests.unit.tiny_coco import document, person, unlabelled, write_split


def test_stem_sees_the_same_picture_through_this_toolkits_normalisation() -> None:
    spec = InputSpec(height=8, width=8)
    stem = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float32))
    mean, std = (torch.tensor(values[::-1]).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    refitted, shift = to_house_input(stem)
    want = nn.functional.conv2d((pixels - 127.5) / 127.5, stem)
    got = nn.functional.conv2d((pixels - mean) / std, refitted) + shift.view(1, -1, 1, 1)
    assert torch.allclose(got, want, atol=1e-4)


def test_batch_norms_of_a_folded_network_change_nothing_evaluated_or_trained() -> None:
    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=0).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    offsets = {}
    for _, norm in pairs(network):
        offsets[norm] = torch.randn(network.get_submodule(norm).num_features, generator=generator)
        network.get_submodule(norm).running_mean.zero_()
        network.get_submodule(norm).running_var.fill_(1 - network.get_submodule(norm).eps)
        network.get_submodule(norm).bias.copy_(offsets[norm])
    folded = network.forward_features(images)
    neutral_norms(network, offsets, images)
    assert torch.allclose(network.forward_features(images), folded, rtol=1e-3, atol=1e-3)
    assert torch.allclose(network.train().forward_features(images), folded, rtol=1e-2, atol=1e-2)


def test_constants_of_a_graph_model_are_read_by_their_stored_type(tmp_path: Path) -> None:
    half, whole = np.arange(6, dtype=np.float16).reshape(2, 3), np.array([1.5], np.float32)
    (tmp_path / "a.bin").write_bytes(half.tobytes() + whole.tobytes())
    weights = [
        {"name": "half", "shape": [2, 3], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "whole", "shape": [1], "dtype": "float32"},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"weightsManifest": [{"paths": ["a.bin"], "weights": weights}]}))
    constants = read_graph_model(tmp_path / "a.json")
    assert np.array_equal(constants["half"], half) and np.array_equal(constants["whole"], whole)
    assert {array.dtype for array in constants.values()} == {np.dtype(np.float32)}


def test_data_sets_are_merged_each_as_often_as_asked(tmp_path: Path) -> None:
    write_split(tmp_path / "a", document([person(7), unlabelled(3)]), split="train")
    write_split(tmp_path / "b", document([person(7, x=20)], image_ids=(7, 8)), split="train")
    merge(tmp_path / "both", [(tmp_path / "a", 1), (tmp_path / "b", 3)])
    split = load_split(tmp_path / "both", "train")
    assert len(split.images) == 2 + 3 * 2 and len(split.keypoints) == 2 + 3
    assert all(cv2.imread(str(image.path)) is not None for image in split.images)
    shown = [[box[0] for box in split.persons(row).boxes_xywh] for row in range(len(split.images))]
    assert shown == [[100.0], [100.0], [20.0], [], [20.0], [], [20.0], []]


def test_data_sets_of_other_keypoints_are_not_merged(tmp_path: Path) -> None:
    write_split(tmp_path / "a", document([person(7)]), split="train")
    other = document([person(7)])
    other["categories"] = [{**other["categories"][0], "keypoints": [f"point_{i}" for i in range(17)]}]
    write_split(tmp_path / "b", other, split="train")
    with pytest.raises(SystemExit, match="other keypoints"):
        merge(tmp_path / "both", [(tmp_path / "a", 1), (tmp_path / "b", 1)])
    assert not (tmp_path / "both").exists()
