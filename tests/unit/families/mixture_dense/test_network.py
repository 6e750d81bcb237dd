"""The network: what comes out of it, how it begins, and what export does to it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import nn  # noqa: E402

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.mixture_dense.loss import spread  # noqa: E402
from mdpose_edge.families.mixture_dense.network import (  # noqa: E402
    DeployedNetwork,
    MixtureDenseNetwork,
    NetworkConfig,
    make_spec,
)
from mdpose_edge.families.mixture_dense.training import FAMILY  # noqa: E402
from mdpose_edge.spec import NO_KEYPOINTS, InputSpec, ModelSpec  # noqa: E402


def small_spec(**options: object) -> ModelSpec:
    config = {"backbone": "test_resnet", "channels": 8, "head_channels": 16, "components": 2, **options}
    return make_spec(NetworkConfig(**config), InputSpec(64, 96))  # type: ignore[arg-type]


def random_images(count: int = 2) -> torch.Tensor:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 96, 3), np.uint8)
    return torch.from_numpy(images)


@pytest.mark.parametrize("components", [1, 5])
@pytest.mark.parametrize("heatmaps", [True, False])
def test_outputs_are_those_of_the_spec(components: int, heatmaps: bool) -> None:
    spec = small_spec(components=components, heatmaps=heatmaps)
    (outputs,) = MixtureDenseNetwork(spec)(random_images())
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        head.name: (2, *spec.head_shape(head)) for head in spec.heads
    }
    names = [name for m in range(1, components + 1) for name in (f"mu_{m}", f"sigma_{m}")]
    assert (
        list(spec.outputs)
        == ["centre", "alpha", "offset", "size", *names, *(["heat", "heat_offset"] * heatmaps)][: len(spec.outputs)]
    )


def test_scores_begin_low_and_spreads_at_a_quarter_of_the_input() -> None:
    spec = small_spec()
    (outputs,) = MixtureDenseNetwork(spec)(random_images())
    for name in ("centre", "heat"):
        assert outputs[name].sigmoid().mean().item() == pytest.approx(0.1, abs=0.01)
    assert spread(outputs["sigma_2"], 1.0).mean().item() == pytest.approx(96 / 4 / 4, abs=0.2)


def test_the_deployed_network_gives_the_same_without_batch_norms() -> None:
    spec = small_spec()
    network = MixtureDenseNetwork(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    network.eval()
    deployed = FAMILY.deployed(network, spec)
    with torch.no_grad():
        expected = FAMILY.heads(network(random_images()), spec)
        for name, got, want in zip(spec.outputs, deployed(random_images()), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()), msg=name)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())
    assert isinstance(deployed, DeployedNetwork) and any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"components": 0}, r"network.components: expected a whole number in 1..5, got 0"),
        ({"sigma_floor": -0.5}, r"network.sigma_floor: expected a number in \[0, 100\], got -0.5"),
        ({"head_channels": 0}, r"network: expected channels and head_channels of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        small_spec(**options)


def test_an_input_that_does_not_halve_down_to_stride_32_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"input.width: expected a multiple of 32, got 72; use 64"):
        make_spec(NetworkConfig(), InputSpec(64, 72))


def test_a_keypoint_set_without_keypoints_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.keypoints: expected at least one keypoint, got none"):
        make_spec(NetworkConfig(), InputSpec(64, 64), NO_KEYPOINTS)


def test_a_backbone_without_stride_4_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network.backbone: .*strides 4, 8, 16 and 32"):
        MixtureDenseNetwork(small_spec(backbone="vit_tiny_patch16_224"))
