"""Adaptive convolutions against figures of the authors' codes, and the network before and after export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("timm")

import torch
from torch import nn

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.adaptive.blocks import AdaptiveBlock
from mdpose_edge.families.adaptive.heads import STRIDE
from mdpose_edge.families.adaptive.network import AdaptiveNetwork, DeployedNetwork, NetworkConfig, make_spec
from mdpose_edge.spec import InputSpec

GOLDEN = np.load(Path(__file__).parents[3] / "goldens" / "adaptive_conv.npz")
TINY: dict[str, Any] = {
    "backbone": "test_resnet", "neck": "pyramid", "channels": 8, "heat_channels": 4, "channels_per_keypoint": 2,
    "pose_channels": 6,
}  # fmt: skip


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def load_norm(norm: nn.Module, state: str) -> None:
    norm.load_state_dict({key: golden(f"{state}.{key}") for key in ("weight", "bias", "running_mean", "running_var")},
                         strict=False)  # fmt: skip


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("folded", [False, True])
def test_dekrs_block(dilation: int, folded: bool) -> None:
    """Positions in y before those in x, and a dilation d that is added to (T - 1) g, not multiplied by it."""
    state, x = f"dekr_d{dilation}_state", golden(f"dekr_d{dilation}_input")
    block = AdaptiveBlock("sample", 4, (6, 7), count=1, dilation=dilation).double().eval()
    conv: Any = block.adapt[0]
    matrix, translation = (golden(f"{state}.{part}_conv.weight") for part in ("transform_matrix", "translation"))
    bias, shift = (golden(f"{state}.{part}_conv.bias") for part in ("transform_matrix", "translation"))
    with torch.no_grad():
        conv.transform.weight.copy_(torch.cat([matrix[:2], translation[:1], matrix[2:], translation[1:]]))
        one = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
        conv.transform.bias.copy_(torch.cat([bias[:2], shift[:1], bias[2:], shift[1:]]) - one)
        conv.conv.weight.copy_(golden(f"{state}.adapt_conv.weight"))
        load_norm(block.norm[0], f"{state}.bn")
        if folded:
            conv.fold()
        found = conv(x, x)
        np.testing.assert_allclose(found, golden(f"dekr_d{dilation}_conv_output"), atol=1e-5)
        np.testing.assert_allclose(block(x), golden(f"dekr_d{dilation}_output"), atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_journals_block(dilation: int) -> None:
    """Both convolutions are moved by the block's input, and there is no translation."""
    state, x = f"journal_d{dilation}_state", golden(f"journal_d{dilation}_input")
    block = AdaptiveBlock("sample", 4, (6, 7), count=2, dilation=dilation).double().eval()
    with torch.no_grad():
        for index in (0, 1):
            conv: Any = block.adapt[index]
            weight, bias = (golden(f"{state}.transform_matrix_conv{index + 1}.{part}") for part in ("weight", "bias"))
            rows = [0, 1, 3, 4]
            conv.transform.weight[rows] = weight
            conv.transform.bias[rows] = bias - torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
            # The authors' code shares the convolutions' weights among the dilations.
            name = f"stn_conv{index + 1}.weight"
            shared = f"{state}.{name}" if f"{state}.{name}" in GOLDEN.files else f"{state}.stn_conv1.weight"
            conv.conv.weight.copy_(golden(shared))
            load_norm(block.norm[index], f"{state}.bn{index + 1}")
        np.testing.assert_allclose(block.adapt[0](x, x), golden(f"journal_d{dilation}_conv1_output"), atol=1e-5)
        np.testing.assert_allclose(block(x), golden(f"journal_d{dilation}_output"), atol=1e-5)


@pytest.mark.parametrize("folded", [False, True])
def test_mmposes_block_moves_each_group_by_itself(folded: bool) -> None:
    x = golden("mmpose_g2_input")
    block = AdaptiveBlock("sample", 6, (6, 7), count=1, groups=2).double().eval()
    conv: Any = block.adapt[0]
    with torch.no_grad():
        conv.transform.weight.copy_(golden("mmpose_g2_state.transform_matrix_conv.weight"))
        conv.transform.bias.copy_(golden("mmpose_g2_state.transform_matrix_conv.bias"))
        conv.conv.weight.copy_(golden("mmpose_g2_state.adapt_conv.weight"))
        load_norm(block.norm[0], "mmpose_g2_state.norm")
        if folded:
            conv.fold()
        np.testing.assert_allclose(block(x), golden("mmpose_g2_output"), atol=1e-5)


def test_it_begins_as_a_plain_convolution() -> None:
    for dilation in (1, 2):
        adaptive: Any = AdaptiveBlock("sample", 4, (8, 8), count=1, dilation=dilation).eval()
        plain: Any = AdaptiveBlock("none", 4, (8, 8), count=1, dilation=dilation).eval()
        x = torch.randn(1, 4, 8, 8)
        with torch.no_grad():
            plain.adapt[0].conv.weight.copy_(adaptive.adapt[0].conv.weight)
            np.testing.assert_allclose(adaptive(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("structure", ["dekr", "guided"])
@pytest.mark.parametrize("kind", ["sample", "bank", "none"])
def test_what_is_deployed_says_the_same(structure: str, kind: str) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(**TINY, structure=structure, adaptive=kind)  # type: ignore[arg-type]
    spec = make_spec(config, InputSpec(64, 96))
    network = AdaptiveNetwork(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
            module.running_mean.normal_()  # type: ignore[union-attr]
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.eval()(images)
        found = DeployedNetwork(network, spec)(images)
    for head, tensor in zip(spec.heads, found, strict=True):
        assert tensor.shape == (2, *spec.head_shape(head)) and tensor.abs().max() > 0.01
        scale = expected[head.name].abs().max()
        np.testing.assert_allclose(tensor / scale, expected[head.name] / scale, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in DeployedNetwork(network, spec).modules())


def test_every_part_learns() -> None:
    for structure in ("dekr", "guided"):
        spec = make_spec(NetworkConfig(**TINY, structure=structure), InputSpec(64, 64))
        network = AdaptiveNetwork(spec)
        nn.init.normal_(network.heads.offset.weight)
        outputs = network(torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8))
        sum(tensor.square().sum() for tensor in outputs.values()).backward()
        idle = [name for name, p in network.heads.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert not idle, idle


def test_hrnets_branches_are_joined_as_the_authors_do() -> None:
    config = NetworkConfig(backbone="hrnet_w18_small", channels_per_keypoint=1, heat_channels=2)
    spec = make_spec(config, InputSpec(64, 64))
    network = AdaptiveNetwork(spec).eval()
    with torch.no_grad():
        features = network.pyramid(network.backbone(torch.zeros(1, 3, 64, 64)))
    assert features.shape == (1, 16 + 32 + 64 + 128, *spec.cells(STRIDE))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        make_spec(NetworkConfig(), InputSpec(100, 64))
    with pytest.raises(ConfigError, match="heat_channels"):
        NetworkConfig(heat_channels=0)
