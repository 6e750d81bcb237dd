"""The comparison of an exported graph with its network: it must be able to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from mdpose_edge.bundle import Bundle, open_bundle  # noqa: E402
from mdpose_edge.checkpoint import load_network  # noqa: E402
from mdpose_edge.errors import ExportError  # noqa: E402
from mdpose_edge.export.parity import (  # noqa: E402
    TOLERANCES,
    check_fp16_range,
    compare_with_torch,
    parity_images,
)
from mdpose_edge.families.mdpose.network import MDPoseNetwork  # noqa: E402
from mdpose_edge.spec import InputSpec  # noqa: E402
from tests.artifacts import Artifacts, single_threaded  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


@pytest.fixture
def network(artifacts: Artifacts) -> MDPoseNetwork:
    """Return a copy that a test may spoil."""
    return load_network(artifacts.checkpoint())[0]


def test_images_are_all_different_and_use_every_value() -> None:
    assert [len(parity_images(InputSpec(64, 96, batch=batch))) for batch in (1, 2, 3)] == [2, 2, 3]
    images = parity_images(InputSpec(64, 96, batch=4))
    assert images.shape == (4, 64, 96, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 4
    assert (images.min(axis=(1, 2, 3)) == 0).all()
    assert (images.max(axis=(1, 2, 3)) == 255).all()
    noise, scene = (np.abs(np.diff(images[i].astype(int), axis=1)).mean() for i in (0, 1))
    assert scene < noise / 4


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_report_says_what_was_found(artifacts: Artifacts, network: MDPoseNetwork, precision: str) -> None:
    bundle = open_bundle(artifacts.bundle("onnx", precision))
    report = compare_with_torch(network, bundle)
    assert report["engine"] == "onnxruntime"
    assert report["images"] == 2
    assert tuple(report["outputs"]) == bundle.spec.outputs
    worst = max(output["relative_error"] for output in report["outputs"].values())
    assert 0 < worst <= report["tolerance"] == TOLERANCES[bundle.spec.precision]
    if precision == "fp16":
        assert worst > TOLERANCES["fp32"]


def shift_a_channel(network: MDPoseNetwork) -> None:
    network.head.mu.bias[3] += 0.01


def swap_colours(network: MDPoseNetwork) -> None:
    stem = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    stem.weight.copy_(stem.weight.flip(1))


def forget_a_batch_norm(network: MDPoseNetwork) -> None:
    norm = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)][3]
    norm.running_var.fill_(1.0)


def break_down(network: MDPoseNetwork) -> None:
    network.head.gamma.bias.fill_(float("nan"))


@pytest.mark.parametrize(
    ("spoil", "output"),
    [
        pytest.param(shift_a_channel, "mu_p3", id="one bias"),
        pytest.param(swap_colours, "o_p3", id="RGB for BGR"),
        pytest.param(forget_a_batch_norm, "o_p3", id="one batch norm"),
        pytest.param(break_down, "gamma_p3", id="NaN"),
    ],
)
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_difference_is_refused_by_the_name_of_its_output(
    artifacts: Artifacts, network: MDPoseNetwork, target: str, spoil: Callable[[MDPoseNetwork], None], output: str
) -> None:
    pytest.importorskip(target if target == "openvino" else "onnxruntime")
    with torch.no_grad():
        spoil(network)
    with pytest.raises(ExportError, match=f"output {output}: expected torch's values within 0.0001"):
        compare_with_torch(network, open_bundle(artifacts.bundle(target)))


def test_a_graph_that_the_engine_refuses_is_an_export_error(artifacts: Artifacts, network: MDPoseNetwork) -> None:
    bundle = open_bundle(artifacts.bundle("onnx"))
    other = Bundle(bundle.path, replace(bundle.spec, heads=bundle.spec.heads[:1]))
    with pytest.raises(ExportError, match=r"one that onnxruntime runs, got its refusal: .*graph and spec disagree"):
        compare_with_torch(network, other)


@pytest.mark.parametrize("factor", [1e6, float("nan")])
def test_fp16_refuses_activations_near_its_end(artifacts: Artifacts, network: MDPoseNetwork, factor: float) -> None:
    spec = open_bundle(artifacts.bundle("onnx", "fp16")).spec
    assert 1 < check_fp16_range(network, spec) < 1000
    with torch.no_grad():
        network.pyramid.lateral[1].weight.mul_(factor)
    with pytest.raises(ExportError, match="activations below 32752 for fp16, got"):
        check_fp16_range(network, spec)
