"""The network: its cell against figures of a public one, what comes out of it, and what export does to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import nn  # noqa: E402

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.recurrent.network import (  # noqa: E402
    ConvLSTM,
    DeployedNetwork,
    NetworkConfig,
    RecurrentNetwork,
    State,
    StopHead,
    make_spec,
)
from mdpose_edge.families.recurrent.training import FAMILY  # noqa: E402
from mdpose_edge.spec import NO_KEYPOINTS, InputSpec, ModelSpec  # noqa: E402

GOLDENS = Path(__file__).parents[3] / "goldens"


def small_spec(**options: object) -> ModelSpec:
    config = {"backbone": "test_resnet", "channels": 8, "hidden": 8, "people": 3, **options}
    return make_spec(NetworkConfig(**config), InputSpec(64, 96))  # type: ignore[arg-type]


def random_images(count: int = 2) -> torch.Tensor:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 96, 3), np.uint8)
    return torch.from_numpy(images)


def made(seed: int = 0, **options: object) -> RecurrentNetwork:
    torch.manual_seed(seed)
    return RecurrentNetwork(small_spec(**options))


def test_the_cell_is_the_public_ones_with_its_convolution_in_two() -> None:
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDENS / "recurrent_convlstm.npz").items()}
    from_input, cell = nn.Conv2d(5, 16, 3, padding=1).double(), ConvLSTM(4).double()
    with torch.no_grad():
        from_input.weight.copy_(golden["weight"][:, :5])
        from_input.bias.copy_(golden["bias"])  # type: ignore[union-attr]
        cell.from_hidden.weight.copy_(golden["weight"][:, 5:])  # type: ignore[union-attr]
    inputs, state = golden["inputs"].requires_grad_(), None
    for step, given in enumerate(inputs):
        state = cell(from_input(given), state)
        torch.testing.assert_close(state.hidden, golden["hidden"][step], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(state.cell, golden["cell"][step], rtol=1e-10, atol=1e-12)
    state.hidden.square().sum().backward()
    torch.testing.assert_close(inputs.grad, golden["grad_inputs"], rtol=1e-9, atol=1e-12)
    weights = torch.cat([from_input.weight.grad, cell.from_hidden.weight.grad], dim=1)  # type: ignore[union-attr]
    torch.testing.assert_close(weights, golden["grad_weight"], rtol=1e-9, atol=1e-12)


def test_the_stop_is_a_layer_over_the_largest_values_of_all_states() -> None:
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDENS / "recurrent_convlstm.npz").items()}
    states = [golden[f"stop_hidden{layer}"] for layer in range(3)]
    head, start = StopHead([state.shape[1] for state in states]).double(), 0
    with torch.no_grad():
        for conv in head.layers:
            assert isinstance(conv, nn.Conv2d)
            conv.weight.copy_(golden["stop_weight"][start : start + conv.in_channels].view(1, -1, 1, 1))
            start += conv.in_channels
        head.layers[0].bias.copy_(golden["stop_bias"])  # type: ignore[union-attr]
    said = head([State(state, state) for state in states]).sigmoid().flatten()
    torch.testing.assert_close(said, golden["stop_probability"])


@pytest.mark.parametrize("refiner", [False, True])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("people", [1, 4])
def test_outputs_are_those_of_the_spec(people: int, calls: int, refiner: bool) -> None:
    network = made(people=people, calls=calls, refiner=refiner)
    spec = small_spec(people=people)
    outputs = network.eval()(random_images())
    for head in spec.heads:
        assert tuple(outputs[head.name].shape) == (2, *spec.head_shape(head))
    assert spec.outputs == (*(f"heat_{step}" for step in range(1, people + 1)), "stop")
    trained = network.train()(random_images())
    sum(tensor.sum() for name, tensor in trained.items() if name != "passes").backward()
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not unused, "DistributedDataParallel waits for every parameter's gradient"


def test_a_person_depends_on_those_before_and_the_feedback() -> None:
    network = made().eval()
    with torch.no_grad():
        one = network(random_images())
        assert not torch.equal(one["heat_1"], one["heat_2"]) and not torch.equal(one["heat_2"], one["heat_3"])
        network.decoder.from_maps.weight.mul_(3.0)  # type: ignore[union-attr]
        other = network(random_images())
    assert not torch.equal(one["heat_1"], other["heat_1"])


def test_chunks_go_on_where_the_last_ended_and_cut_the_gradient() -> None:
    """Twice two people are the four of one piece; the features learn from both, the state's way back ends between."""
    images = random_images()
    whole, parts = made(people=4), made(people=2, chunks=2)
    parts.load_state_dict(whole.state_dict())
    found = [network(images) for network in (whole, parts)]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, msg=name)
    way_back = []
    for network, outputs in zip((whole, parts), found, strict=True):
        outputs["heat_3"].square().sum().backward()
        conv = network.decoder.layers[0].from_hidden
        assert isinstance(conv, nn.Conv2d) and conv.weight.grad is not None
        way_back.append(conv.weight.grad)
    assert way_back[1].any() and not torch.allclose(*way_back)


def test_the_curriculum_unrolls_one_step_more_after_so_many_passes() -> None:
    network = made(people=4, curriculum=2)
    steps = [network(random_images(1))["stop"].shape[1] for _ in range(7)]
    assert steps == [2, 2, 3, 3, 4, 4, 4]
    assert network.eval()(random_images(1))["stop"].shape[1] == 4
    resumed = made(people=4, curriculum=2)
    resumed.load_state_dict(network.state_dict())
    assert resumed(random_images(1))["stop"].shape[1] == 4


def test_the_deployed_network_gives_the_same_without_batch_norms() -> None:
    network = made(refiner=True)
    spec = small_spec(refiner=True)
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
        ({"people": 0}, r"network.people: expected a whole number in 1..16, got 0"),
        ({"people": 17}, r"network.people: expected a whole number in 1..16, got 17"),
        ({"calls": 4}, r"network.calls: expected a whole number in 1..3, got 4"),
        ({"layers": 0}, r"network.layers: expected a whole number in 1..4, got 0"),
        ({"chunks": 0}, r"network.chunks: expected a whole number in 1..16, got 0"),
        ({"curriculum": -1}, r"network.curriculum: expected a whole number in 0..1000000, got -1"),
        ({"hidden": 6}, r"network.hidden: expected a multiple of 4, as each layer has half the width .*, got 6"),
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
