from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from mdpose_edge import demo
from mdpose_edge.common.progress import no_progress
from mdpose_edge.datasets.images import read_image
from mdpose_edge.errors import GateError, MissingPackageError, TrainingError
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.train import loop


@pytest.fixture
def photo() -> Path:
    """The demo's photograph, or a skip."""
    try:
        return demo.photo_path()
    except MissingPackageError as error:
        pytest.skip(str(error))


def test_the_photograph_is_a_person_in_colour(photo: Path) -> None:
    assert read_image(photo, orient=False).shape == (512, 512, 3)


def test_without_the_photograph_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PHOTO_IN_SKIMAGE", "data/nobody.png")
    with pytest.raises(MissingPackageError, match=r'pip install "mdpose-edge\[demo\]"'):
        demo.run_demo(tmp_path / "demo", progress=no_progress)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("photo")
def test_a_training_that_was_ended_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGTERM saves and ends training in good order; the demo must not take the rest for a result."""
    monkeypatch.setattr(loop, "train", lambda config, data, out, **_: out / loop.RESUME_FILE)
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 2)
    monkeypatch.setattr(demo, "VAL_IMAGES", 1)
    with pytest.raises(TrainingError, match="the demo's training: expected its end, got a SIGTERM"):
        demo.run_demo(tmp_path / "demo", progress=no_progress)
    assert not (tmp_path / "demo" / "summary.json").exists()


def test_where_the_gate_forbids_int8_the_photograph_is_shown_in_float_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    error = GateError("x", expected="a graph that holds", got="one that fell short", do="calibrate")

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(demo, "export_shipped_int8", refuse)
    bundle, verdict = demo._quantize_shipped(tmp_path, no_progress)
    assert verdict == "let INT8 not pass (one that fell short): float is shown instead"
    assert (read_model_spec(bundle).precision, bundle.name) == ("fp32", demo.PHOTO_FLOAT_BUNDLE)


def test_the_demo_trains_from_its_start_checkpoint_at_its_own_size() -> None:
    from mdpose_edge.train.config import load_config

    config = load_config(demo.CONFIG, [f"init={demo.START_CHECKPOINT}"])
    assert read_model_spec(demo.START_CHECKPOINT).input == config.input.spec()
