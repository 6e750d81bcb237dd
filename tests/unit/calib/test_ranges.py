"""Ranges of activations: one pass, histograms that grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpose_edge.calib.ranges import BINS, VALUES_PER_IMAGE, MagnitudeHistogram, batches, measure_ranges
from mdpose_edge.calib.thresholds import METHODS
from mdpose_edge.common.onnx_graph import OnnxGraph
from mdpose_edge.errors import ConfigError, ExportError
from tests.unit.calib.float_graph import make_calibration, make_float_graph, node_named, onnx, run_graph


def filled(*images: np.ndarray) -> MagnitudeHistogram:
    histogram = MagnitudeHistogram()
    for phase, image in enumerate(images):
        histogram.add(image.astype(np.float32), phase)
    return histogram


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=6), st.integers(0, 99))
def test_growing_gives_what_one_histogram_over_all_values_gives(spreads: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    images = [random.normal(0, spread, (4, 50)).astype(np.float32) for spread in spreads]
    histogram = filled(*images)
    everything = np.concatenate(images)
    assert (histogram.low, histogram.high) == (min(everything.min(), 0), max(everything.max(), 0))
    assert np.abs(everything).max() <= histogram.end < 2 * max(np.abs(images[0]).max(), np.abs(everything).max())
    expected = np.minimum(np.abs(everything) * np.float32(BINS / histogram.end), BINS - 1).astype(int)
    assert np.array_equal(histogram.counts, np.bincount(expected.ravel(), minlength=BINS))


def test_zeros_have_no_range_until_something_comes() -> None:
    assert filled(np.zeros(5)).end == 0.0
    assert filled(np.zeros(5), np.array([0.0, -3.0])).end == 4.0


def test_large_tensors_are_thinned_out_but_extremes_count() -> None:
    values = np.zeros(3 * VALUES_PER_IMAGE, np.float32)
    values[1], values[2] = -5.0, 3.0  # both between the steps of phase 0
    histogram = filled(values)
    assert histogram.counts.sum() == VALUES_PER_IMAGE
    assert (histogram.low, histogram.high, histogram.end) == (-5.0, 3.0, 8.0)
    assert histogram.counts[1:].sum() == 0
    assert filled(values, values, values).counts[1:].sum() == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ExportError, match="finite activations"):
        filled(np.array([1.0, value]))


def test_batches_are_filled_up() -> None:
    rows = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    assert [batch.ravel().tolist() for batch in batches(rows, 2)] == [[0, 1], [2, 3], [4, 4]]


def test_ranges_are_those_of_the_activations(tmp_path: Path) -> None:
    model, calibration = make_float_graph(), make_calibration(tmp_path, 3)
    ranges = measure_ranges(OnnxGraph(model), calibration, method="min-max")
    computed = [name for node in model.graph.node for name in node.output]
    assert list(ranges) == ["image", *computed]
    assert (ranges["image"].low, ranges["image"].high) == (0.0, calibration.inputs.max())
    outputs = [run_graph(model, calibration.inputs[i : i + 1])["mu"] for i in range(3)]
    assert ranges["mu"].low == pytest.approx(min(output.min() for output in outputs), rel=1e-5)
    assert ranges["mu"].high == pytest.approx(max(output.max() for output in outputs), rel=1e-5)
    assert ranges["mu"].scale == pytest.approx(max(np.abs(output).max() for output in outputs) / 127, rel=1e-5)
    assert ranges["stem"].low == 0.0


def test_a_last_batch_that_is_filled_up_counts_its_images_once(tmp_path: Path) -> None:
    calibration, seen = make_calibration(tmp_path, 3), []
    single = measure_ranges(OnnxGraph(make_float_graph()), calibration)
    pairs = measure_ranges(OnnxGraph(make_float_graph(batch=2)), calibration, progress=lambda *step: seen.append(step))
    assert seen == [(2, 3), (3, 3)]
    assert {name: found.amax for name, found in pairs.items()} == pytest.approx(
        {name: found.amax for name, found in single.items()}, rel=0.02
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_measures(tmp_path: Path, method: str) -> None:
    ranges = measure_ranges(OnnxGraph(make_float_graph()), make_calibration(tmp_path, 2), method=method)
    assert all(0 < found.amax <= max(found.high, -found.low) for found in ranges.values())


def test_a_graph_that_does_not_run_is_one_sentence(tmp_path: Path) -> None:
    model = make_float_graph()
    node_named(model, "node_stem").op_type = "Softsign2"
    with pytest.raises(ExportError, match="the graph: expected one that onnxruntime runs"):
        measure_ranges(OnnxGraph(model), make_calibration(tmp_path, 1))


def test_a_network_that_overflows_is_refused(tmp_path: Path) -> None:
    model = make_float_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "project.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(16, np.inf, np.float32), tensor.name))
    with pytest.raises(ExportError, match="the network: expected finite activations, got"):
        measure_ranges(OnnxGraph(model), make_calibration(tmp_path, 1))


def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calib-method"):
        measure_ranges(OnnxGraph(make_float_graph()), make_calibration(tmp_path, 1), method="best")
