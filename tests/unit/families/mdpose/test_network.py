"""The network: the paper's numbers, the pyramid's wiring, and what export does to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.backbone import InputNormalization, _to_bgr, fold_batch_norm, make_backbone
from mdpose_edge.families.mdpose.heads import constants_of
from mdpose_edge.families.mdpose.network import (
    DeployedNetwork,
    MDPoseNetwork,
    NetworkConfig,
    make_spec,
)
from mdpose_edge.families.same_padding import make_padding_static
from mdpose_edge.spec import InputSpec, ModelSpec

FOLD_TOLERANCE = 1e-10
"""Relative, in float64: folding only reorders products; measured below 1e-12."""

FLOAT32_TOLERANCE = 1e-4
"""Relative, over a whole backbone in float32, whose sums run in another order; measured at most 5.3e-6."""

PRETRAINED_SCRIPT = """
from mdpose_edge.errors import ConfigError
from mdpose_edge.spec import InputSpec
from mdpose_edge.families.mdpose.network import MDPoseNetwork, NetworkConfig, make_spec

try:
    MDPoseNetwork(make_spec(NetworkConfig(), InputSpec(64, 64)), pretrained=True)
except ConfigError as error:
    print(error)
"""


def small_spec(backbone: str = "mobilenetv4_conv_small", levels: tuple[str, ...] = ("p3", "p4", "p5")) -> ModelSpec:
    size = 2 ** int(levels[-1][1:]) * 2
    return make_spec(NetworkConfig(backbone, levels, channels=8, head_convs=2), InputSpec(size, size))


def randomise_batch_norm(module: nn.Module) -> None:
    """Return every batch norm statistics and parameters as different from the identity as training does."""
    generator = torch.Generator().manual_seed(1)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -1.0, 1.0),
                (norm.running_var, 0.5, 2.0),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -1.0, 1.0),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((got - want).abs().max() / want.abs().max())


def random_images(spec: ModelSpec, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, spec.input.height, spec.input.width, 3), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def paper_spec() -> ModelSpec:
    """DLA-34 at 736 px with the paper's options, which are the defaults."""
    return make_spec(NetworkConfig(), InputSpec(736, 736))


@pytest.fixture(scope="module")
def paper_network(paper_spec: ModelSpec) -> MDPoseNetwork:
    """On the meta device: shapes and counts without arithmetic."""
    with torch.device("meta"):
        return MDPoseNetwork(paper_spec, auxiliary_center=True)


def test_paper_parameters(paper_network: MDPoseNetwork) -> None:
    assert sum(p.numel() for p in paper_network.parameters()) == pytest.approx(21.5e6, rel=0.01)


def test_paper_strides_and_components(paper_spec: ModelSpec) -> None:
    assert [level.stride for level in constants_of(paper_spec).levels] == [8, 16, 32]
    assert [level.scale for level in constants_of(paper_spec).levels] == [2**-4, 2**-3, 2**-2]
    shapes = [paper_spec.cells(level.stride) for level in constants_of(paper_spec).levels]
    assert shapes == [(92, 92), (46, 46), (23, 23)]
    assert sum(rows * columns for rows, columns in shapes) == 11_109


def test_paper_forward_cost_and_output_shapes(paper_spec: ModelSpec, paper_network: MDPoseNetwork) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        heads = paper_network(torch.empty(1, 736, 736, 3, dtype=torch.uint8, device="meta"))
    assert counter.get_total_flops() == pytest.approx(176e9, rel=0.01)
    for level, head in zip(constants_of(paper_spec).levels, heads, strict=True):
        rows, columns = paper_spec.cells(level.stride)
        assert head.o.shape == (1, 1, rows, columns)
        assert head.mu.shape == head.gamma.shape == (1, 2 * 18, rows, columns)


def test_paper_head_is_eight_convolutions_with_swish_after_all_but_the_last(paper_network: MDPoseNetwork) -> None:
    kinds = [type(layer) for layer in paper_network.head.tower]
    assert kinds == [nn.Conv2d, nn.SiLU] * 7
    assert {layer.out_channels for layer in paper_network.head.tower if isinstance(layer, nn.Conv2d)} == {256}


def test_five_levels_have_strides_8_to_128_and_relu_before_p7() -> None:
    spec = small_spec(levels=("p3", "p4", "p5", "p6", "p7"))
    network = MDPoseNetwork(spec).eval()
    with torch.no_grad():
        levels = network.pyramid(network.backbone(network.normalize(random_images(spec))))
        p5, p6, p7 = levels[2:]
        assert torch.equal(p6, network.pyramid.extra[0](p5))
        assert torch.equal(p7, network.pyramid.extra[1](p6.relu()))
        assert (p6 < 0).any()  # else the ReLU could not be seen
    assert [tuple(level.shape[2:]) for level in levels] == [
        spec.cells(level.stride) for level in constants_of(spec).levels
    ]
    assert [level.stride for level in constants_of(spec).levels] == [8, 16, 32, 64, 128]


def test_head_is_shared_by_the_levels() -> None:
    network = MDPoseNetwork(small_spec(), auxiliary_center=True)
    assert {name.split(".")[1] for name in network.state_dict() if name.startswith("head.")} == {
        "tower", "o", "mu", "gamma",
    }  # fmt: skip


@pytest.mark.parametrize("backbone", ["dla34", "resnet18", "mobilenetv4_conv_small"])
def test_folding_batch_norm_changes_nothing_but_the_graph(backbone: str) -> None:
    network = make_backbone(backbone, pretrained=False).double().eval().requires_grad_(False)
    randomise_batch_norm(network)
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = network(image)
    fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for was, now in zip(before, network(image), strict=True):
        assert relative_error(now, was) < FOLD_TOLERANCE


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize(
    ("backbone", "options"), [("tf_efficientnet_lite0", {}), ("mobilenetv2_100", {"pad_type": "same"})]
)
def test_padding_by_the_size_of_the_input_folds_and_becomes_a_constant(
    backbone: str, options: dict[str, str], side: int
) -> None:
    network = timm.create_model(backbone, features_only=True, out_indices=(2, 3, 4), **options)
    network = network.double().eval().requires_grad_(False)
    randomise_batch_norm(network)
    image = torch.randn(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = network(image)
    fold_batch_norm(network)
    make_padding_static(network, lambda: network(image))
    assert not any(isinstance(module, (nn.BatchNorm2d, Conv2dSame)) for module in network.modules())
    for was, now in zip(before, network(image), strict=True):
        assert relative_error(now, was) < FOLD_TOLERANCE


def test_batch_norm_behind_a_convolution_that_normalises_its_weights_stays() -> None:
    module = nn.Sequential(StdConv2d(2, 2, 3), nn.BatchNorm2d(2)).eval().requires_grad_(False)
    randomise_batch_norm(module)
    image = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    before = module(image)
    fold_batch_norm(module)
    assert torch.equal(module(image), before)


def test_batch_norm_that_no_convolution_feeds_alone_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x + self.norm(x)

    module = Shared().eval().requires_grad_(False)
    randomise_batch_norm(module)
    image = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    before = module(image)
    fold_batch_norm(module)
    assert torch.equal(module(image), before)


def test_deployed_network_cuts_the_auxiliary_keypoint_and_keeps_the_rest() -> None:
    spec = small_spec()
    network = MDPoseNetwork(spec, auxiliary_center=True).eval().requires_grad_(False)
    randomise_batch_norm(network)
    deployed, images = DeployedNetwork(network, spec), random_images(spec, count=2)
    outputs = dict(zip(spec.outputs, deployed(images), strict=True))
    for level, head in zip(constants_of(spec).levels, network(images), strict=True):
        for kind, raw in (("o", head.o), ("mu", head.mu[:, :34]), ("gamma", head.gamma[:, :34])):
            assert relative_error(outputs[f"{kind}_{level.name}"], raw) < FLOAT32_TOLERANCE
    assert network.head.mu.out_channels == 36  # the original is not touched
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_normalisation_is_imagenets_in_bgr() -> None:
    spec = InputSpec(32, 32)
    images = torch.randint(0, 256, (1, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    rgb = images.numpy()[..., ::-1].astype(np.float64) / 255
    expected = ((rgb - IMAGENET_DEFAULT_MEAN) / IMAGENET_DEFAULT_STD)[..., ::-1].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(InputNormalization(spec)(images).numpy(), expected, atol=1e-5)


def test_backbone_turned_to_bgr_sees_the_same_picture() -> None:
    backbone = make_backbone("resnet18", pretrained=False).eval().requires_grad_(False)
    rgb = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = backbone(rgb)
    _to_bgr(backbone)
    for was, now in zip(seen, backbone(rgb.flip(1)), strict=True):
        assert relative_error(now, was) < FLOAT32_TOLERANCE
    assert not torch.allclose(backbone(rgb)[0], seen[0], atol=1e-2)


def test_pretrained_weights_out_of_reach_are_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", PRETRAINED_SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("pretrained: expected ImageNet weights of dla34")
    assert "HF_HOME" in sentence and "pretrained=false" in sentence


@pytest.mark.parametrize(
    ("backbone", "got"),
    [
        pytest.param("dla35", "Unknown model", id="no such model"),
        pytest.param("vit_tiny_patch16_224", "strides 16", id="without stride 8"),
    ],
)
def test_unusable_backbone_is_refused(backbone: str, got: str) -> None:
    with pytest.raises(ConfigError, match=f"network.backbone: .*strides 8, 16 and 32, got .*{got}"):
        MDPoseNetwork(small_spec(backbone))


@pytest.mark.parametrize(
    "levels", [("p4", "p5"), ("p3", "p4", "p5", "p7"), ("p5", "p4", "p3"), (), ("p3", "p4", "p5", "p6", "p7", "p8")]
)
def test_unknown_levels_are_refused(levels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"network\.levels"):
        NetworkConfig(levels=levels)


@pytest.mark.parametrize("options", [{"channels": 0}, {"head_convs": 0}])
def test_empty_head_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="channels and head_convs of at least 1"):
        NetworkConfig(**options)
