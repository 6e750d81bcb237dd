"""What every engine must do, on every kind of model that it opens. A new entry in the registry is tested by itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.bundle import Bundle, open_bundle, write_bundle
from mdpose_edge.errors import EngineError
from mdpose_edge.estimator import PoseEstimator
from mdpose_edge.families.mdpose.heads import mdpose_spec
from mdpose_edge.poses import Poses
from mdpose_edge.runtimes.base import RuntimeAdapter
from mdpose_edge.runtimes.registry import ENGINES, load_adapter, open_engine
from mdpose_edge.spec import HeadSpec, InputSpec, ModelSpec
from tests.artifacts import BOXES, NETWORKS, SIZE, THRESHOLDS, Artifacts

Heads = dict[str, NDArray[np.float32]]


class Case(NamedTuple):
    engine: str
    target: str
    precision: str
    batch: int
    family: str


VARIANTS = (("fp32", 1), ("fp32", 3), ("fp16", 1), ("int8", 1))
"""Precisions and batches."""
CASES = [
    Case(engine, target, precision, batch, family)
    for family in NETWORKS
    for engine in ENGINES
    for target in ENGINES[engine].targets
    for precision, batch in VARIANTS
    if not (target == "torch" and precision != "fp32")
    if not (family in BOXES and (precision, batch) in (("fp32", 3), ("fp16", 1)))  # seen with the family's poses
    if target != "jetson"  # a Jetson's own bundles run there alone; elsewhere the target tensorrt stands for both
]
GRAPH_CASES = [case for case in CASES if case.target != "torch" and case[2:] == ("fp32", 1, "mdpose")]
"""What is wrong with a graph does not depend on the family."""
WIDER = tuple(
    replace(head, channels=2) if head.name == "o_p3" else head for head in mdpose_spec(InputSpec(SIZE, SIZE)).heads
)


def require_engine(engine: str) -> None:
    """Skip an engine that is not installed, and TensorRT where there is no GPU."""
    if engine == "torch":
        return
    pytest.importorskip(engine)
    if engine == "tensorrt":
        pytest.importorskip("pycuda")
        from mdpose_edge.trt.cuda import Cuda

        try:
            Cuda().close()
        except EngineError as error:
            pytest.skip(f"no NVIDIA GPU: {error}")


def build(engine: str, model: Path) -> None:
    """Build what stands between a model and its engine: a bundle for TensorRT is no engine yet."""
    if engine == "tensorrt":
        from mdpose_edge.trt.build import build_engine

        build_engine(model)


def case_id(case: Case) -> str:
    return f"{case.family}-{case.engine}-{case.target}-{case.precision}-batch{case.batch}"


class Opened(NamedTuple):
    case: Case
    model: Path
    spec: ModelSpec
    adapter: RuntimeAdapter


@pytest.fixture(scope="module", params=CASES, ids=case_id)
def opened(request: pytest.FixtureRequest, artifacts: Artifacts) -> Iterator[Opened]:
    case: Case = request.param
    require_engine(case.engine)
    model = artifacts.of(case.family).model(case.target, case.precision, case.batch)
    build(case.engine, model)
    spec, adapter = open_engine(model, case.engine, threads=1)
    with adapter:
        yield Opened(case, model, spec, adapter)


@pytest.fixture(scope="module")
def reference(artifacts: Artifacts) -> Callable[[str], Callable[[NDArray[np.uint8]], Heads]]:
    """Return a family's network as trained, which no adapter has touched."""
    return cache(lambda family: artifacts.of(family).reference())


FRAMES = list(np.random.default_rng(2).integers(0, 256, (16, 96, 128, 3), np.uint8))


@pytest.fixture(scope="module")
def reference_poses(artifacts: Artifacts) -> Callable[[str], list[Poses]]:
    return cache(lambda family: artifacts.of(family).reference_poses(FRAMES))


def random_images(spec: InputSpec) -> NDArray[np.uint8]:
    shape = (spec.batch, spec.height, spec.width, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def run(adapter: RuntimeAdapter, images: NDArray[np.uint8]) -> Heads:
    """Run an engine and keep its outputs, which are its own until the next call."""
    return {name: tensor.copy() for name, tensor in adapter.infer(images).items()}


def rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def assert_close(got: Heads, expected: Heads, tolerance: float) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(got[name], tensor, rtol=0, atol=tolerance * np.abs(tensor).max(), err_msg=name)


def test_outputs_have_the_names_shapes_and_dtype_of_the_spec(opened: Opened) -> None:
    heads = opened.adapter.infer(random_images(opened.spec.input))
    shapes = {
        head.name: (opened.case.batch, head.channels, SIZE // (head.stride or SIZE), SIZE // (head.stride or SIZE))
        for head in opened.spec.heads
    }
    assert {name: tensor.shape for name, tensor in heads.items()} == shapes
    assert {tensor.dtype for tensor in heads.values()} == {np.dtype(np.float32)}


def test_values_are_those_of_the_trained_network(
    opened: Opened, reference: Callable[[str], Callable[..., Heads]]
) -> None:
    from mdpose_edge.export.parity import INT8_TOLERANCE, TOLERANCES

    images = random_images(opened.spec.input)
    got, expected = run(opened.adapter, images), reference(opened.case.family)(images)
    if opened.case.precision == "int8":  # rounding, and clipping of what calibration did not see
        errors = {
            name: rms(got[name] - tensor) / (tensor.std() or np.abs(tensor).max()) for name, tensor in expected.items()
        }
        assert max(errors.values()) < INT8_TOLERANCE, errors
    else:
        assert_close(got, expected, TOLERANCES[opened.case.precision])


def test_a_second_call_gives_the_same_bits(opened: Opened) -> None:
    images = random_images(opened.spec.input)
    first = run(opened.adapter, images)
    run(opened.adapter, 255 - images)
    second = run(opened.adapter, images)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_input_may_be_read_only_and_is_not_modified(opened: Opened) -> None:
    images = random_images(opened.spec.input)
    expected = run(opened.adapter, images.copy())
    kept = images.copy()
    images.flags.writeable = False
    assert_close(run(opened.adapter, images), expected, 0.0)
    assert np.array_equal(images, kept)


@pytest.mark.parametrize("threads", [2, None])
def test_more_threads_give_the_same_values(opened: Opened, threads: int | None) -> None:
    images = random_images(opened.spec.input)
    _, other = open_engine(opened.model, opened.case.engine, threads=threads)
    with other:
        assert_close(run(other, images), run(opened.adapter, images), 1e-5)


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        pytest.param(lambda images: images.astype(np.float32), "float32", id="dtype"),
        pytest.param(lambda images: images[:, :-1], "(.*, 63, 64, 3)", id="height"),
        pytest.param(lambda images: images.transpose(0, 3, 1, 2), "(.*, 3, 64, 64)", id="NCHW"),
        pytest.param(lambda images: np.concatenate([images, images]), "uint8", id="batch"),
        pytest.param(lambda images: images[:, :, ::-1], "strided", id="strided view"),
        pytest.param(lambda images: images.tolist(), "list", id="list"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(opened: Opened, spoil, got) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EngineError, match=f"images: expected a C-contiguous uint8 array .*got .*{got}"):
        opened.adapter.infer(spoil(random_images(opened.spec.input)))


def test_a_forked_child_is_told_instead_of_hanging(opened: Opened) -> None:
    images = random_images(opened.spec.input)
    opened.adapter.infer(images)  # its threads are there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own about forks beside threads
        child = os.fork()
    if not child:
        told = False
        try:
            opened.adapter.infer(images)
        except EngineError as error:
            told = "expected an engine opened in this process" in str(error) and "spawn" in str(error)
        finally:
            os._exit(0 if told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    opened.adapter.infer(images)


def test_a_closed_engine_says_so_and_closes_twice(opened: Opened) -> None:
    _, adapter = open_engine(opened.model, opened.case.engine, threads=1)
    with adapter:
        adapter.infer(random_images(opened.spec.input))
    adapter.close()
    with pytest.raises(EngineError, match="expected an open engine, got a closed one"):
        adapter.infer(random_images(opened.spec.input))


@pytest.mark.parametrize("threads", [0, 10**30])
def test_threads_that_no_cpu_has_are_refused(opened: Opened, threads: int) -> None:
    with pytest.raises(EngineError, match=f"threads: expected 1 to 1024, got {threads}"):
        open_engine(opened.model, opened.case.engine, threads=threads)


def test_the_estimator_finds_the_same_people(opened: Opened, reference_poses: Callable[[str], list[Poses]]) -> None:
    expected = reference_poses(opened.case.family)
    threshold = THRESHOLDS.get(opened.case.family, 0.5)
    with PoseEstimator(opened.model, runtime=opened.case.engine, threads=1, threshold=threshold) as estimator:
        assert estimator.engine == opened.case.engine
        found = estimator.batch(FRAMES)
    assert sum(map(len, expected)) > len(FRAMES)
    if opened.case.precision == "fp32":
        assert_same_poses(found, expected)
    else:  # rounding may tip a candidate at a threshold
        tolerance = 0.2 if opened.case.precision == "int8" else 0.1
        assert sum(map(len, found)) == pytest.approx(sum(map(len, expected)), rel=tolerance)


def assert_same_poses(found: list[Poses], expected: list[Poses]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        assert len(got) == len(wanted)
        np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-4)
        np.testing.assert_allclose(got.keypoints_xy, wanted.keypoints_xy, atol=0.01)
        np.testing.assert_allclose(got.sigma_xy, wanted.sigma_xy, atol=0.01)
        np.testing.assert_allclose(got.boxes_xyxy, wanted.boxes_xyxy, atol=0.01)
        np.testing.assert_array_equal(got.classes, wanted.classes)  # type: ignore[arg-type]
        if wanted.keypoints_3d is not None:
            assert got.keypoints_3d is not None
            np.testing.assert_allclose(got.keypoints_3d, wanted.keypoints_3d, rtol=1e-3, atol=1e-3)


def rewrite(source: Path, out: Path, spec: ModelSpec, cut: bool = False) -> Bundle:
    """Copy a bundle under another spec, its graph cut in half if asked, with hashes that match."""
    with write_bundle(out, spec) as directory:
        for name in spec.files:
            data = (source / name).read_bytes()
            (directory / name).write_bytes(data[: len(data) // 2] if cut and name == spec.graph else data)
    return open_bundle(out)


@pytest.mark.parametrize("case", GRAPH_CASES, ids=case_id)
def test_a_corrupt_graph_is_one_sentence(case: Case, artifacts: Artifacts, tmp_path: Path) -> None:
    require_engine(case.engine)
    source = artifacts.bundle(case.target)
    bundle = rewrite(source, tmp_path / "cut", open_bundle(source).spec, cut=True)
    with pytest.raises(EngineError, match=f"expected a graph that {case.engine} can load") as caught:
        build(case.engine, bundle.path)
        load_adapter(case.engine, bundle)
    assert "\n" not in str(caught.value)
    assert str(bundle.graph) in str(caught.value)


@pytest.mark.parametrize("case", GRAPH_CASES, ids=case_id)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"heads": (HeadSpec("o_p3", 1, 8),)}, "outputs o_p3", id="an output too many"),
        pytest.param({"heads": (HeadSpec("o_p9", 1, 8),)}, "outputs o_p9", id="an output missing"),
        pytest.param({"heads": WIDER}, r"output o_p3 float32 \(1, 2, 8, 8\)", id="an output of other channels"),
        pytest.param({"input": InputSpec(128, SIZE)}, r"image uint8 \(1, 128, 64, 3\)", id="another size"),
        pytest.param({"input": InputSpec(SIZE, SIZE, batch=2)}, r"image uint8 \(2, 64, 64, 3\)", id="another batch"),
        pytest.param({"input": InputSpec(SIZE, SIZE, name="x")}, r"x uint8 \(1, 64, 64, 3\)", id="another name"),
    ],
)
def test_a_graph_that_is_not_what_its_spec_says_is_refused(
    case: Case, change: dict[str, object], expected: str, artifacts: Artifacts, tmp_path: Path
) -> None:
    require_engine(case.engine)
    source = artifacts.bundle(case.target)
    spec = replace(open_bundle(source).spec, **change)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=f"expected .*{expected}.*graph and spec disagree"):
        bundle = rewrite(source, tmp_path / "other", spec)
        build(case.engine, bundle.path)
        load_adapter(case.engine, bundle)
