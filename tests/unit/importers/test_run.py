"""The command `import`: what it writes goes the way of all checkpoints, and what it cannot use leaves nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from mdpose_edge.checkpoint import read_checkpoint  # noqa: E402
from mdpose_edge.common.files import file_sha256  # noqa: E402
from mdpose_edge.families.hourglass import HOURGLASSES, HourglassShape  # noqa: E402
from mdpose_edge.importers.run import SOURCES, source_of  # noqa: E402
from tests.command import Run, command_runner  # noqa: E402
from tests.unit.calib.frames import write_frames  # noqa: E402
from tests.unit.importers.published import save_published, weights_of  # noqa: E402

GOLDEN = "mixture_dense_hourglass"
SIZE = ("--height", "128", "--width", "128")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return command_runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = HourglassShape((6, 4), (4, 4, 6, 6, 6, 8), (2, 2, 2, 2, 2, 4), channels=5)
    monkeypatch.setitem(HOURGLASSES, "hourglass104", shape)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file whose residual branches say less: a hundred random ones after another drown in INT8's noise."""
    weights = {name: 0.2 * t if name.endswith("bn2.weight") else t for name, t in weights_of(GOLDEN).items()}
    return save_published(tmp_path / "mdn_3x.pth", weights, optimizer={"state": {}, "param_groups": []})


def test_a_published_file_is_deployed_in_int8(run: Run, published: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, bundle, frames = tmp_path / "model.safetensors", tmp_path / "bundle", tmp_path / "frames"
    code, out, error = run("import", published, "--from", "centernet-mdn", "--out", model, *SIZE)
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == str(model) and "the least spread is not in the file: 10 cells (" in out
    origin = read_checkpoint(model).spec.provenance.imported
    assert origin is not None and (origin["file"], origin["sha256"]) == ("mdn_3x.pth", file_sha256(published))
    assert all(f"- {note}" in out.splitlines() for note in origin["notes"])
    write_frames(frames, 2)
    calib = ("--data", frames, "--like", model, "--out", tmp_path / "calib", "--num", 2, "--allow-few")
    assert run("calib", "make", *calib)[0] == 0
    int8 = ("--precision", "int8", "--calib", tmp_path / "calib", "--allow-few", "--out", bundle)
    code, _, error = run("export", model, "--target", "onnx", *int8)
    assert code == 0, error
    assert json.loads((bundle / "spec.json").read_text())["provenance"]["imported"] == origin
    for used in (model, bundle):
        poses = tmp_path / f"{used.name}.json"
        code, _, error = run("infer", used, frames, "--coco", poses, "--threads", 1, "--threshold", "0.01")
        assert code == 0, error
        assert json.loads(poses.read_text())


def test_it_is_evaluated_as_any_other(run: Run, published: Path, tmp_path: Path) -> None:
    from tests.unit.tiny_coco import document, person, write_split

    model = tmp_path / "model.safetensors"
    assert run("import", published, "--from", "centernet-mdn", "--out", model, *SIZE)[0] == 0
    write_split(tmp_path / "data", document([person(7), person(3)]))
    results = ("--json", tmp_path / "ap.json", "--results", tmp_path / "results.json")
    code, _, error = run("eval", model, "--data", tmp_path / "data", *results, "--threads", 1)
    assert code == 0, error
    assert "AP" in json.loads((tmp_path / "ap.json").read_text())["figures"]


def without(names: str, **others: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {k: t for k, t in weights.items() if not k.startswith(names)} | others


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            without("pre.1.bn2.weight"),
            "expected 1024 tensors of the network, got 1 missing, the first pre.1.bn2.weight;",
            id="missing",
        ),
        pytest.param(
            without("inters."),
            "tensors of the network, got 10 missing, the first inters.0.bn1.bias;",
            id="several missing",
        ),
        pytest.param(
            without(" ", **{"zz.0.weight": torch.zeros(1), "zz.1.weight": torch.zeros(1)}),
            "expected no tensor beside those of the network, got 2 left over, the first zz.0.weight;",
            id="left over",
        ),
        pytest.param(
            without("pre.0.conv.weight", **{"pre.0.conv.weight": torch.zeros(6, 3, 5, 5)}),
            "expected pre.0.conv.weight of a shape that becomes (6, 3, 7, 7), got (6, 3, 5, 5);",
            id="another shape",
        ),
        pytest.param(
            lambda weights: weights_of("mdpose_resnet50"),
            "got those of MDPose (shawn615/mdpose); use --from mdpose.",
            id="of another code",
        ),
        pytest.param(
            lambda weights: {"conv1.weight": torch.zeros(1)},
            "got 1 tensors of which the first is conv1.weight; choose one of --from dekr, hrnet-bottom-up",
            id="of no code",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], sentence: str
) -> None:
    path = save_published(tmp_path / "a.pth", change(weights_of(GOLDEN)))
    code, out, error = run("import", path, "--from", "centernet-mdn", "--out", tmp_path / "model.safetensors", *SIZE)
    assert (code, out) == (2, "") and error.startswith(f"mdpose-edge: {path}: expected ")
    assert sentence in error and len(error.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--height", "100"), "input.height: expected a multiple of 128, got 100; use 128."),
        (("--out", "model.pth"), "--out: expected a name that ends in .safetensors, got model.pth; change it."),
        (("--out", "mdn_3x.pth.safetensors"), "a file that was not made here; name another file, or replace it with"),
    ],
)
def test_bad_options_are_refused(
    run: Run, published: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str], sentence: str
) -> None:
    monkeypatch.chdir(published.parent)
    (published.parent / "mdn_3x.pth.safetensors").write_bytes(b"somebody's")
    options = {"--from": "centernet-mdn", "--out": "model.safetensors", "--width": "128"} | dict([words])
    code, out, error = run("import", published, *(word for option in options.items() for word in option))
    assert (code, out) == (2, "") and sentence in error
    assert sorted(file.name for file in published.parent.iterdir()) == ["mdn_3x.pth", "mdn_3x.pth.safetensors"]


def test_an_earlier_checkpoint_is_replaced(run: Run, published: Path, tmp_path: Path) -> None:
    words = ("import", published, "--from", "centernet-mdn", "--out", tmp_path / "model.safetensors", *SIZE)
    assert run(*words)[0] == run(*words)[0] == 0


def test_every_source_is_told_from_the_others_by_its_signature() -> None:
    signatures = [signature for name in SOURCES for signature in source_of(name).signatures]
    assert len(set(signatures)) == len(signatures) >= len(SOURCES) == 5


def test_an_absent_package_is_named(run: Run, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    code, out, error = run("import", published, "--from", "dekr", "--out", published.with_name("a.safetensors"))
    assert (code, out) == (2, "") and 'run: pip install "mdpose-edge[train]"' in error
