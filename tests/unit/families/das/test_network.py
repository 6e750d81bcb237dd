"""The network: what it begins with, what an export folds, and what the loss makes of its outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.base import People  # noqa: E402
from mdpose_edge.families.das.network import DASNetwork, NetworkConfig, make_spec  # noqa: E402
from mdpose_edge.families.das.training import FAMILY, LossConfig  # noqa: E402
from mdpose_edge.spec import InputSpec, KeypointSpec, ModelSpec  # noqa: E402

INPUT = InputSpec(64, 64)
TINY = NetworkConfig(backbone="test_resnet", channels=8, head_convs=2)


def tiny(**options: Any) -> tuple[DASNetwork, ModelSpec]:
    torch.manual_seed(0)
    spec = make_spec(dataclasses.replace(TINY, **options), INPUT)
    return FAMILY.network(spec), spec


def targets_of(spec: ModelSpec, *, solid: bool, config: LossConfig) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    joints = rng.normal(0.0, 0.3, (1, 17, 3)) + np.array([0.0, 0.0, 4.0])
    camera = np.array([[100.0, 0.0, 32.0], [0.0, 100.0, 32.0], [0.0, 0.0, 1.0]])
    seen = joints @ camera.T
    points = (seen[..., :2] / seen[..., 2:]).astype(np.float32)
    box = np.array([[10.0, 10.0, 50.0, 50.0]], np.float32)
    people = People(points, np.ones((1, 17), np.bool_), box[:, :2] + 20, box)
    if solid:
        people = dataclasses.replace(people, keypoints_3d=joints.astype(np.float32), cameras=camera[None])
    encoded = FAMILY.encode(people, spec, config)
    return {name: torch.from_numpy(array)[None] for name, array in encoded.items()}


def loss_of(network: DASNetwork, spec: ModelSpec, config: LossConfig, *, solid: bool = True) -> Any:
    images = torch.full((1, 64, 64, 3), 90, dtype=torch.uint8)
    return FAMILY.loss(
        network(images), targets_of(spec, solid=solid, config=config), spec, config, torch.Generator(), measure=True
    )


def gradient(network: DASNetwork, name: str) -> Any:
    return dict(network.named_parameters())[name].grad


def test_an_export_folds_the_factors_of_the_levels_and_leaves_the_flows() -> None:
    network, spec = tiny()
    with torch.no_grad():
        for kind, factors in network.heads.factors.items():
            factors.copy_(torch.linspace(0.5, 2.0, 4) + len(kind))
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    deployed = FAMILY.deployed(network, spec)
    wanted = FAMILY.heads(network.eval()(images), spec)
    assert len(spec.outputs) == len(wanted) == 24
    for name, ours, theirs in zip(spec.outputs, deployed(images), wanted, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-4, msg=name)
        assert ours.shape[1:] == spec.head_shape(next(head for head in spec.heads if head.name == name))
    assert not [name for name, _ in deployed.named_parameters() if "flow" in name or "factor" in name]


def test_scores_begin_low_and_depths_near_five_metres() -> None:
    network, _ = tiny()
    heads = network.eval()(torch.zeros(1, 64, 64, 3, dtype=torch.uint8)).heads
    assert heads["o_p3"].sigmoid().mean().item() == pytest.approx(0.01, rel=0.5)
    metres = heads["depth_p3"].exp().mean().item() * 1.4 * 64 / 1000
    assert metres == pytest.approx(5.0, rel=0.3)


@pytest.mark.parametrize("solid", [True, False])
@pytest.mark.parametrize("likelihood", ["flow", "laplace", "l1"])
def test_each_likelihood_teaches_what_is_known(likelihood: str, solid: bool) -> None:
    network, spec = tiny()
    config = LossConfig(likelihood=likelihood, laplace_first=0)  # type: ignore[arg-type]
    found = loss_of(network, spec, config, solid=solid)
    assert set(found.parts) == set(FAMILY.parts)
    assert (found.parts["depth"].item() > 0) is solid
    sum(found.parts.values()).backward()
    taught = {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in network.named_parameters()}
    assert taught["heads.last.uv.weight"] and taught["heads.last.o.weight"]
    assert taught["heads.last.dz.weight"] is solid and taught["heads.last.depth.weight"] is solid
    assert taught["heads.last.sigma.weight"] is (likelihood != "l1")
    flows = {name.split(".")[1] for name, moved in taught.items() if name.startswith("flows") and moved}
    assert flows == ({"first_3", "last_3"} if solid else {"first_2", "last_2"}) if likelihood == "flow" else not flows
    assert all(p.grad is not None for p in network.parameters())  # processes that train together wait for all


def test_the_flow_learns_before_it_moves_the_joints() -> None:
    grads = {}
    for first in (0, 5):
        network, spec = tiny()
        sum(loss_of(network, spec, LossConfig(laplace_first=first)).parts.values()).backward()
        grads[first] = gradient(network, "heads.last.uv.weight").clone()
        assert gradient(network, "flows.last_3.t.0.0.weight").abs().sum() > 0
    plain, spec = tiny()
    sum(loss_of(plain, spec, LossConfig(likelihood="laplace")).parts.values()).backward()
    torch.testing.assert_close(grads[5], gradient(plain, "heads.last.uv.weight"))
    assert not torch.allclose(grads[0], grads[5])


def test_the_scales_are_calibrated_by_the_errors_of_the_last_passes() -> None:
    network, spec = tiny()
    config = LossConfig()
    for _ in range(2):
        loss_of(network, spec, config)
    assert network.state[0] == 2 and (network.state[1:] > 0).all()
    network.state[1:] = torch.tensor([2.0, 3.0, 4.0, 1.0, 2.0, 8.0])
    assert FAMILY.finished_spec(spec, network).constants["sigma_factors"] == [2.0, 1.5, 0.5]
    flat, spec = tiny()
    loss_of(flat, spec, config, solid=False)
    assert FAMILY.finished_spec(spec, flat).constants["sigma_factors"][2] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 4}, "network.updates: expected a whole number in 0..3, got 4"),
        ({"levels": ("p4", "p5")}, "network.levels: expected p3, p4, p5"),
        ({"channels": 0}, "network: expected channels and head_convs of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **options)


def test_inputs_and_keypoints_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"input.width: expected a multiple of 64, got 96; use 128"):
        make_spec(TINY, InputSpec(64, 96))
    with pytest.raises(
        ConfigError, match=r"data.keypoints: expected a keypoint pelvis, or both left_hip and right_hip"
    ):
        make_spec(TINY, INPUT, KeypointSpec(("nose",), (), (), (0.1,)))
    with pytest.raises(ConfigError, match=r"loss.pose_weight"):
        LossConfig(pose_weight=-1.0)
    with pytest.raises(ConfigError, match=r"loss.laplace_first"):
        LossConfig(laplace_first=-1)
