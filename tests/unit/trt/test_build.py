"""`build_engine` on devices that are none: every version of TensorRT, every refusal, every way to be interrupted."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpose_edge.bundle import open_bundle
from mdpose_edge.errors import BundleError, EngineError, MdposeError, MissingPackageError
from mdpose_edge.export.targets.registry import TARGETS
from mdpose_edge.runtimes.registry import load_adapter, open_engine
from mdpose_edge.trt import host
from mdpose_edge.trt.build import build_engine
from mdpose_edge.trt.cache import CACHE_FOLDER, MANIFEST_FILE, PLAN_FILE
from mdpose_edge.trt.platforms import parse_version
from mdpose_edge.trt.recipe import read_golden, read_recipe
from mdpose_edge.trt.trtexec import trtexec_commands
from tests.artifacts import Artifacts
from tests.command import command_runner
from tests.unit.trt.conftest import FakeDevice, Make

pytest.importorskip("torch", reason="bundles are exported from it")
pytest.importorskip("onnxruntime", reason="the TensorRT of these tests computes with it")

from tests.unit.trt.fake_tensorrt import VERSIONS

Install = Callable[..., FakeDevice]

DESKTOPS = [
    pytest.param(*row, id="-".join(row))
    for row in (
        ("8.5.1", "8.5", "fp32"),
        ("8.5.1", "8.5", "fp16"),
        ("8.5.1", "8.5", "int8"),
        ("8.6.1", "8.6", "int8"),
        ("10.3.0", "10.3", "fp16"),
        ("10.3.0", "10.3", "int8"),
        ("10.12.0", "10.12", "fp32"),
        ("10.12.0", "10.12", "fp16"),
        ("10.16.2", "10.16", "int8"),
        ("11.1.0", "11", "fp16"),
        ("11.1.0", "11", "int8"),
    )
]


@pytest.mark.parametrize(("version", "trt", "precision"), DESKTOPS)
def test_every_tensorrt_builds_what_was_asked(
    device: Install, bundle: Make, version: str, trt: str, precision: str
) -> None:
    found = device(version)
    path = bundle("tensorrt", precision, trt=trt)
    built = build_engine(path)
    assert not built.cached
    report = built.manifest.report
    assert report["inspection"]["built"] == report["inspection"]["asked"]
    assert report["inspection"]["other_precision"] == ()
    assert sorted(os.listdir(built.path)) == [MANIFEST_FILE, PLAN_FILE]
    header = json.loads((built.path / PLAN_FILE).read_bytes().partition(b"\n")[0])
    weak = trt in ("8.5", "8.6", "10.3")
    flags = {"fp32": [], "fp16": ["FP16", "TF32"], "int8": ["FP16", "INT8", "TF32"]}[precision]
    assert header["typed"] is not weak
    assert header["flags"] == (flags if weak else [] if precision == "fp32" else ["TF32"])
    assert found.machine.memory == {}
    assert found.machine.contexts == 0


@pytest.mark.parametrize("version", ["8.5.1", "11.1.0"])
def test_the_builder_is_told_what_the_recipe_says(device: Install, bundle: Make, version: str) -> None:
    found = device(version)
    build_engine(bundle("tensorrt", "fp16", trt="8.5" if version == "8.5.1" else "11"))
    (config,) = found.knobs.configs
    assert config._pools == {"WORKSPACE": 4096 << 20}
    sources = found.trt.TacticSource
    assert config._tactics == 1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS)
    assert hasattr(config, "_preview") is (version == "8.5.1")
    assert object.__getattribute__(config, "max_aux_streams") == (1 if version == "8.5.1" else 0)


FOREIGN_KERNELS = {"CUBLAS", "CUBLAS_LT", "CUDNN"}


@pytest.mark.parametrize("version", VERSIONS)
def test_trtexec_is_told_what_the_builder_is_told(device: Install, bundle: Make, version: str) -> None:
    found = device(version)
    opened = open_bundle(bundle("tensorrt", "fp16", trt="11" if parse_version(version) >= (10, 12) else "8.5"))
    build_engine(opened.path)
    (config,) = found.knobs.configs
    ranges = {
        tuple(parse_version(word) for word in re.findall(r"[\d.]+", label)): command
        for label, command in trtexec_commands(opened, read_recipe(opened))
    }
    (command,) = (c for (first, end), c in ranges.items() if first <= parse_version(version) < end)
    words = dict(word.partition("=")[::2] for word in shlex.split(command))
    used = {source.name for source in found.trt.TacticSource if config._tactics & 1 << int(source)}
    off = set(words.get("--tacticSources", "").replace("-", "").split(",")) - {""}
    assert {source.name for source in found.trt.TacticSource} - off == used
    assert off <= FOREIGN_KERNELS
    preview = getattr(config, "_preview", None) if parse_version(version) < (8, 6) else None
    assert words.get("--preview", "+").strip("+").lower() == (preview or "").replace("_", "").lower()
    streams = object.__getattribute__(config, "max_aux_streams")
    assert words.get("--maxAuxStreams") == ("0" if streams == 0 else None)
    assert words["--memPoolSize"] == f"workspace:{config._pools['WORKSPACE'] >> 20}"
    flags = {flag.name for flag in found.trt.BuilderFlag if int(flag) in config._flags}
    assert ("--fp16" in words) is ("FP16" in flags)
    assert ("--noTF32" in words) is ("TF32" not in flags)


@pytest.mark.parametrize(("available_mb", "enough"), [(8000, True), (1000, False), ("no MemAvailable", True)])
def test_memory_that_a_jetson_has_in_its_page_cache_counts_as_free(
    device: Install, bundle: Make, monkeypatch: pytest.MonkeyPatch, available_mb: int | str, enough: bool
) -> None:
    driver_says = 900 if isinstance(available_mb, int) else 8000  # a recipe for Orin Nano wants 1024 and the weights
    device("10.3.0", jetpack="6.2", free_mib=driver_says)
    monkeypatch.setattr(host, "memory_available_mb", lambda: available_mb)
    path = bundle("jetson", "fp16", jetpack="6.2")
    if enough:
        assert build_engine(path).path.is_dir()
        return
    with pytest.raises(EngineError, match=r"expected \d+ MiB of free GPU memory to build, got 953 of"):
        build_engine(path)


@pytest.mark.parametrize("integrated", [True, False])
def test_a_desktop_gpu_has_the_memory_that_its_driver_says(
    device: Install, bundle: Make, monkeypatch: pytest.MonkeyPatch, integrated: bool
) -> None:
    device("10.3.0", free_mib=900, integrated=integrated)
    monkeypatch.setattr(host, "memory_available_mb", lambda: 32_000)
    path = bundle("tensorrt", "fp32", trt="10.3")
    if integrated:
        assert build_engine(path).path.is_dir()
        return
    with pytest.raises(EngineError, match="got 900 of"):
        build_engine(path)


def test_progress_is_told_where_tensorrt_tells_it(device: Install, bundle: Make) -> None:
    seen: list[tuple[int, int, str, str]] = []
    device("10.3.0")
    build_engine(bundle("tensorrt", "fp16", trt="10.3"), progress=lambda *step: seen.append(step))
    assert [step[2] for step in seen if not step[3]] == [
        "checking bundle and machine", "building", "inspecting what was built", "self-test", "done",
    ]  # fmt: skip
    assert [step for step in seen if step[3]] == [
        (0, 2, "Building Engine", "TensorRT"),
        (1, 2, "Building Engine", "TensorRT"),
        (2, 2, "Building Engine", "TensorRT"),
    ]


def test_a_second_build_finds_the_first(device: Install, bundle: Make) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    first = build_engine(path)
    second = build_engine(path)
    assert second.cached
    assert second.path == first.path
    assert len(found.knobs.configs) == 1
    assert not build_engine(path, force=True).cached
    assert found.knobs.timing == [b"", b"+"]  # the first build's measurements serve the second


@pytest.mark.parametrize(
    "change",
    [{"gpu": "NVIDIA Other GPU"}, {"compute_capability": (8, 9)}, {"machine_id": "grace"}],
    ids=lambda change: next(iter(change)),
)
def test_another_gpu_or_machine_builds_its_own(device: Install, bundle: Make, change: dict[str, Any]) -> None:
    path = bundle("tensorrt", "fp16", trt="8.5")
    device("8.5.1")
    first = build_engine(path)
    other = device("8.5.1", **change)
    second = build_engine(path)
    assert not second.cached
    assert second.path != first.path
    assert len(other.knobs.configs) == 1


def test_another_tensorrt_builds_its_own(device: Install, bundle: Make) -> None:
    path = bundle("tensorrt", "fp16", trt="8.5")
    device("8.5.1")
    first = build_engine(path)
    device("8.6.1")
    assert build_engine(path).path != first.path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGES = [
    pytest.param(PLAN_FILE, flip, "the plan was altered", id="a byte of the plan"),
    pytest.param(PLAN_FILE, cut, "it was cut short or replaced", id="a plan cut short"),
    pytest.param(PLAN_FILE, Path.unlink, "the file engine.plan, got none", id="no plan"),
    pytest.param(MANIFEST_FILE, cut, "none that can be read", id="a manifest cut short"),
    pytest.param(MANIFEST_FILE, Path.unlink, "none that can be read", id="no manifest"),
]


@pytest.mark.parametrize(("file", "damage", "message"), DAMAGES)
def test_a_damaged_engine_is_never_deserialized(
    device: Install, bundle: Make, file: str, damage: Callable[[Path], None], message: str
) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    built = build_engine(path)
    damage(built.path / file)
    found.knobs.deserialized.clear()
    with pytest.raises(EngineError, match=message) as caught:
        open_engine(path)
    assert "mdpose-edge build" in str(caught.value)
    assert found.knobs.deserialized == []
    assert not build_engine(path).cached  # and a build replaces it
    open_engine(path)[1].close()


def test_a_plan_from_elsewhere_is_never_deserialized(device: Install, bundle: Make) -> None:
    path = bundle("tensorrt", "fp16", trt="8.5")
    device("8.5.1", machine_id="elsewhere")
    foreign = build_engine(path)
    here = device("8.5.1")
    with pytest.raises(EngineError, match=r"expected an engine built on this machine, .* run: mdpose-edge build"):
        open_engine(path)
    own = build_engine(path).path
    for file in (PLAN_FILE, MANIFEST_FILE):  # moved under the name that is looked for
        (own / file).write_bytes((foreign.path / file).read_bytes())
    here.knobs.deserialized.clear()
    with pytest.raises(EngineError, match="expected a manifest for this machine, got one for another"):
        open_engine(path)
    assert here.knobs.deserialized == []


def test_an_engine_of_another_graph_is_never_deserialized(device: Install, exported: Make, tmp_path: Path) -> None:
    found = device("10.12.0")
    first, second = exported("tensorrt", "fp32", trt="11"), exported("tensorrt", "fp16", trt="11")
    one, other = build_engine(first, cache=tmp_path / "a"), build_engine(second, cache=tmp_path / "a")
    for file in (PLAN_FILE, MANIFEST_FILE):
        (one.path / file).write_bytes((other.path / file).read_bytes())
    found.knobs.deserialized.clear()
    os.environ["MDPOSE_EDGE_ENGINES"] = str(tmp_path / "a")
    try:
        with pytest.raises(EngineError, match="a manifest for this graph_sha256 and flags"):
            open_engine(first)
    finally:
        del os.environ["MDPOSE_EDGE_ENGINES"]
    assert found.knobs.deserialized == []


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


@pytest.mark.parametrize("death", [Killed, KeyboardInterrupt])
def test_a_build_that_dies_half_way_leaves_no_engine(device: Install, bundle: Make, death: type[BaseException]) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    found.knobs.dies = death
    with pytest.raises(death):
        build_engine(path)
    assert os.listdir(path / CACHE_FOLDER) == []
    with pytest.raises(EngineError, match="run: mdpose-edge build"):
        open_engine(path)
    found.knobs.dies = None
    assert not build_engine(path).cached


def test_a_process_that_dies_while_it_writes_leaves_no_engine(device: Install, bundle: Make) -> None:
    """Kill a real process between the plan's bytes and the rename; what it leaves is hidden and never read."""
    device("8.6.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    child = os.fork()
    if child == 0:
        os.rename = Path.rename = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]
        try:
            build_engine(path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with pytest.raises(EngineError, match="run: mdpose-edge build"):
        open_engine(path)
    assert not build_engine(path).cached


def test_a_failed_self_test_leaves_no_engine(device: Install, bundle: Make) -> None:
    found = device("8.6.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    for error in (100.0, float("nan")):
        found.knobs.error = error
        with pytest.raises(
            EngineError, match=r"self-test of o_p3: expected a largest error of at most 0\.\d+ of what was"
        ):
            build_engine(path)
    assert [name for name in os.listdir(path / CACHE_FOLDER) if not name.startswith("timing")] == []
    assert found.machine.contexts == 0


def test_a_silent_fallback_is_an_error(device: Install, bundle: Make, quantized_names: list[str]) -> None:
    found = device("8.5.1")
    path = bundle("tensorrt", "int8", trt="8.5")
    found.knobs.falls_back = set(quantized_names[:1])
    assert build_engine(path).manifest.report["inspection"]["built"]["fp32"] == 1  # within one in twenty
    found.knobs.falls_back = set(quantized_names[:5])
    with pytest.raises(
        EngineError, match=r"at least 32 of 33 convolutions in int8, got 28: TensorRT fell back for /net"
    ):
        build_engine(path, force=True)
    assert [name for name in os.listdir(path / CACHE_FOLDER) if not name.startswith("timing")] != []  # the first one


@pytest.mark.parametrize("batch", [1, 3])
def test_the_self_test_compares_with_the_recorded_heads(device: Install, bundle: Make, batch: int) -> None:
    device("8.6.1")
    path = bundle("tensorrt", "fp16", batch, trt="8.5")
    report = build_engine(path).manifest.report["self_test"]
    opened = open_bundle(path)
    assert report.keys() == set(opened.spec.outputs)
    assert max(found["largest_error"] for found in report.values()) < 1e-4
    golden = read_golden(opened)
    with load_adapter("tensorrt", opened) as adapter:
        heads = adapter.infer(golden.images[np.arange(batch) % len(golden.images)])
        for name, recorded in golden.heads.items():
            np.testing.assert_allclose(heads[name][0], recorded[0], atol=1e-4 * np.abs(recorded).max())


# Machines that are not the recipe's.


@pytest.mark.parametrize(
    ("wish", "precision", "setup", "message"),
    [
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "10.12.0"},
            r"TensorRT at least 8\.5 and below 10\.12, got 10\.12\.0; .* --trt 10\.12", id="another TensorRT",
        ),
        pytest.param(
            {"trt": "11"}, "fp16", {"version": "10.3.0"}, r"TensorRT at least 10\.12 .*got 10\.3\.0", id="too old",
        ),
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "8.5.1", "compute_capability": (3, 7)},
            r"compute capability 3\.7, and TensorRT 8\.5\.1 needs compute capability 5\.0", id="a GPU too old",
        ),
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "8.5.1", "compute_capability": (12, 0)},
            r"compute capability 10\.0 and above needs TensorRT 10\.8", id="a GPU too new",
        ),
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "8.5.1", "jetpack": "5.1"},
            r"a desktop or server GPU, got a Jetson with Jetson Linux 35\.4\.1; .* --target jetson --jetpack 5\.1",
            id="a Jetson",
        ),
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "8.5.1", "jetpack": "unreadable"},
            r"a desktop or server GPU, got a Jetson with Jetson Linux unknown; .* --target jetson\.$",
            id="a Jetson that does not say its version",
        ),
        pytest.param(
            {"trt": "8.5"}, "fp16", {"version": "8.5.1", "free_mib": 1000},
            r"expected \d+ MiB of free GPU memory to build, got 1000 of 1500 MiB; close other programs",
            id="too little memory",
        ),
    ],
)  # fmt: skip
def test_another_machine_than_the_recipes_is_refused(
    device: Install, bundle: Make, wish: dict[str, Any], precision: str, setup: dict[str, Any], message: str
) -> None:
    device(**setup)
    path = bundle("tensorrt", precision, **wish)
    with pytest.raises(EngineError, match=message) as caught:
        build_engine(path)
    assert "\n" not in str(caught.value)
    assert not [n for n in (os.listdir(path / CACHE_FOLDER) if (path / CACHE_FOLDER).exists() else [])]


@pytest.mark.parametrize(
    ("wish", "setup", "message"),
    [
        pytest.param(
            {"jetpack": "6.0"}, {"version": "10.3.0", "jetpack": "6.2"},
            r"expected JetPack 6\.0, got JetPack 6\.2, Jetson Linux 36\.4\.3; export the bundle .* --jetpack 6\.2",
            id="wrong JetPack",
        ),
        pytest.param(
            {"jetpack": "6.0"}, {"version": "10.3.0", "jetpack": "later than the table"},
            r"expected JetPack 6\.0, got JetPack unknown, Jetson Linux 99\.1\.0; update mdpose-edge\.$",
            id="a JetPack that the table lacks",
        ),
        pytest.param(
            {"jetpack": "6.2"}, {"version": "10.3.0"},
            r"expected Jetson Orin Nano with JetPack 6\.2, got no Jetson", id="no Jetson",
        ),
        pytest.param(
            {"jetpack": "5.1", "device": "xavier-nx"}, {"version": "8.5.1", "jetpack": "5.1"},
            r"expected Jetson Xavier NX, compute capability 7\.2, got Orin, compute capability 8\.7", id="wrong device",
        ),
        pytest.param(
            {"jetpack": "6.2"}, {"version": "8.6.1", "jetpack": "6.2"},
            r"TensorRT at least 10\.3 and below 10\.4, got 8\.6\.1", id="another TensorRT than the JetPack's",
        ),
    ],
)  # fmt: skip
def test_another_jetson_than_the_recipes_is_refused(
    device: Install, bundle: Make, wish: dict[str, Any], setup: dict[str, Any], message: str
) -> None:
    device(**setup)
    with pytest.raises(EngineError, match=message):
        build_engine(bundle("jetson", "fp16", **wish))


@pytest.mark.parametrize(("made_for", "runs"), [("6.2", "6.2"), ("6.1", "6.2"), ("5.1", "5.1"), ("7.2", "7.2")])
def test_a_jetson_builds_for_its_jetpack_and_for_one_with_the_same_stack(
    device: Install, bundle: Make, made_for: str, runs: str
) -> None:
    version = {"6.2": "10.3.0", "5.1": "8.5.1", "7.2": "10.16.2"}[runs]
    found = device(version, jetpack=runs)
    path = bundle("jetson", "fp16", jetpack=made_for)
    assert not build_engine(path).cached
    assert found.knobs.configs[0]._pools == {"WORKSPACE": 1024 << 20}
    copies = found.machine.copies
    with open_engine(path)[1] as adapter:
        adapter.infer(np.zeros((1, 64, 64, 3), np.uint8))
    assert found.machine.copies == copies  # nothing is copied where memory is shared


def test_a_bundle_for_another_target_is_refused(device: Install, artifacts: Artifacts) -> None:
    device("8.5.1")
    with pytest.raises(BundleError, match="a bundle for tensorrt or jetson, got one for onnx; export it again"):
        build_engine(artifacts.bundle("onnx"))


def test_a_changed_bundle_is_refused_before_anything_is_loaded(device: Install, bundle: Make) -> None:
    found = device("8.5.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    flip(path / "recipe.json")
    with pytest.raises(BundleError, match=r"recipe\.json: expected sha256"):
        build_engine(path)
    assert found.machine.allocations == 0


def test_a_cache_folder_that_cannot_be_written_is_a_sentence(device: Install, bundle: Make, tmp_path: Path) -> None:
    found = device("8.5.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"a folder to keep engines in, got .*Not a directory.*--cache") as caught:
        build_engine(path, cache=tmp_path / "file" / "engines")
    assert "\n" not in str(caught.value)
    assert found.knobs.configs == []  # before any minute is spent


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_folder_is_a_sentence(device: Install, bundle: Make, tmp_path: Path) -> None:
    device("8.5.1")
    (tmp_path / "engines").mkdir(mode=0o500)
    with pytest.raises(EngineError, match=r"a folder to keep engines in, got .*Permission denied"):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"), cache=tmp_path / "engines")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            "no CUDA-capable device is detected",
            'got "cuInit failed: no CUDA-capable device is detected"; run this on the',
        ),
        ("system has unsupported display driver / cuda driver combination", "update the NVIDIA driver"),
    ],
)
def test_no_gpu_and_the_wrong_driver_are_sentences(device: Install, bundle: Make, failure: str, message: str) -> None:
    device("8.5.1", start_failure=failure)
    with pytest.raises(EngineError, match=message):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"))


def test_a_driver_without_a_gpu_is_a_sentence(device: Install, bundle: Make) -> None:
    device("8.5.1", count=0)
    with pytest.raises(EngineError, match="GPU: expected an NVIDIA GPU, got none; run this on the device"):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"))


def test_a_driver_too_old_for_tensorrt_is_a_sentence(device: Install, bundle: Make) -> None:
    found = device("8.5.1")
    found.knobs.start_failure = "CUDA initialization failure with error: 35. Please check your CUDA installation"
    with pytest.raises(EngineError, match=r"CUDA initialization failure with error: 35.*update the NVIDIA driver"):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"))


@pytest.mark.parametrize("package", ["tensorrt", "pycuda"])
def test_a_missing_package_names_the_extra(
    device: Install, bundle: Make, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    device("8.5.1")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    path = bundle("tensorrt", "fp16", trt="8.5")
    for run in (build_engine, open_engine):
        with pytest.raises(
            MissingPackageError, match=rf'{package} for the tensorrt .* pip install "mdpose-edge\[tensor'
        ):
            run(path)


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        (
            "build_failure",
            "Could not find any implementation for node",
            r"a graph that tensorrt can build, got \"Could not",
        ),
        ("context_refused", True, "expected memory for its tensors"),
    ],
)
def test_what_tensorrt_refuses_is_told_in_its_words(
    device: Install, bundle: Make, knob: str, value: object, message: str
) -> None:
    found = device("8.5.1")
    setattr(found.knobs, knob, value)
    with pytest.raises(EngineError, match=message):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"))
    assert found.machine.contexts == 0


def test_both_targets_are_known_to_the_exporter() -> None:
    assert {"tensorrt", "jetson"} <= TARGETS.keys()


# NVDLA.

ORIN = {"version": "8.6.1", "jetpack": "6.0"}


def test_nvdla_takes_the_network(device: Install, bundle: Make) -> None:
    found = device(**ORIN)
    path = bundle("jetson", "fp16", jetpack="6.0", device="agx-orin", nvdla=1)
    built = build_engine(path)
    (config,) = found.knobs.configs
    assert object.__getattribute__(config, "DLA_core") == 1
    assert object.__getattribute__(config, "default_device_type").name == "DLA"
    inspection = built.manifest.report["inspection"]
    assert inspection["built"] == {"nvdla": sum(inspection["asked"].values())}
    assert inspection["nvdla_layers"] == 1
    assert built.manifest.report["cuda_graph"] is False
    again = build_engine(path, nvdla_core=0)
    assert again.manifest.nvdla_core == 0
    assert again.path == built.path


def test_a_convolution_off_nvdla_is_an_error(device: Install, bundle: Make) -> None:
    found = device(**ORIN)
    path = bundle("jetson", "fp16", jetpack="6.0", device="agx-orin", nvdla=0)
    name = next(iter(read_recipe(open_bundle(path)).convolutions))
    found.knobs.off_nvdla = {name}
    with pytest.raises(EngineError, match=f"33 of 33 convolutions on NVDLA, got 32: TensorRT fell back for {name}"):
        build_engine(path)


@pytest.mark.parametrize(
    ("version", "jetpack", "named"), [("8.6.2", "6.0", None), ("8.5.2", "5.1", None), ("10.7.0", "6.2", "10.7")]
)
def test_int8_on_nvdla_takes_its_scales_from_the_cache(
    device: Install, bundle: Make, version: str, jetpack: str, named: str | None
) -> None:
    device(version, jetpack=jetpack)
    path = bundle("jetson", "int8", jetpack=jetpack, device="agx-orin", nvdla=0, trt=named)
    built = build_engine(path)
    header = json.loads((built.path / PLAN_FILE).read_bytes().partition(b"\n")[0])
    assert header["cache"] == open_bundle(path).spec.files["calibration.cache"]
    assert header["flags"] == ["FP16", "GPU_FALLBACK", "INT8", "TF32"]
    assert built.manifest.report["inspection"]["off_nvdla"] == ()


def test_a_cache_for_another_version_is_refused(device: Install, bundle: Make) -> None:
    """TensorRT 10.3 answers such a file with a crash, 8 by calibrating on nothing."""
    device("8.6.1", jetpack="6.0")
    path = bundle("jetson", "int8", jetpack="6.0", device="agx-orin", nvdla=0)
    with pytest.raises(EngineError, match=r"TensorRT at least 8\.6\.2 and below 8\.6\.3, got 8\.6\.1"):
        build_engine(path)


def test_a_core_that_is_not_there_is_a_sentence(device: Install, bundle: Make) -> None:
    found = device(**ORIN)
    found.knobs.nvdla_cores = 1
    with pytest.raises(EngineError, match="NVDLA: expected NVDLA core 1, got 1 cores"):
        build_engine(bundle("jetson", "fp16", jetpack="6.0", device="orin-nx", nvdla=1))


def test_a_core_for_a_bundle_of_the_gpu_is_refused(device: Install, bundle: Make) -> None:
    device("8.5.1")
    with pytest.raises(EngineError, match="expected a bundle for NVDLA, got one for the GPU"):
        build_engine(bundle("tensorrt", "fp16", trt="8.5"), nvdla_core=0)


def test_trtexec_takes_the_core_that_build_takes(
    exported: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = command_runner(monkeypatch, capsys)
    path = exported("jetson", "fp16", jetpack="6.0", device="agx-orin", nvdla=0)
    for options, core in (((), 0), (("--nvdla-core", 0), 0), (("--nvdla-core", 1), 1)):
        code, out, _ = run("build", path, "--show-trtexec", *options)
        assert code == 0
        assert re.findall(r"--useDLACore=(\d+)", out) == [str(core)]


@pytest.mark.parametrize("more", [(), ("--show-trtexec",)])
@pytest.mark.parametrize(
    ("options", "core", "message"),
    [
        ({"jetpack": "6.2"}, 1, "expected a bundle for NVDLA, got one for the GPU; export it again with --nvdla"),
        (
            {"jetpack": "6.0", "device": "agx-orin", "nvdla": 0}, 7,
            "--nvdla-core: expected core 0 or 1 of Jetson AGX Orin, got 7; choose another",
        ),
    ],
)  # fmt: skip
def test_a_core_that_the_bundles_device_lacks_is_refused_with_and_without_a_device(
    exported: Make,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: dict[str, Any],
    core: int,
    message: str,
    more: tuple[str, ...],
) -> None:
    path = exported("jetson", "fp16", **options)
    code, out, error = command_runner(monkeypatch, capsys)("build", path, "--nvdla-core", core, *more)
    assert (code, out) == (2, "")
    assert message in error


def test_a_workspace_of_ones_own_builds_anew(device: Install, bundle: Make) -> None:
    found = device("8.5.1")
    path = bundle("tensorrt", "fp16", trt="8.5")
    build_engine(path)
    assert build_engine(path, workspace_mib=512).manifest.report["workspace_mib"] == 512
    assert found.knobs.configs[-1]._pools == {"WORKSPACE": 512 << 20}


def with_recipe(source: Path, out: Path, changes: Mapping[str, Any]) -> Path:
    """Copy a bundle with other values in its recipe, the hashes being right; a table's are joined to what is there."""
    from mdpose_edge.bundle import write_bundle

    spec = open_bundle(source).spec
    with write_bundle(out, replace(spec)) as directory:
        for name in spec.files:
            data = (source / name).read_bytes()
            if name == "recipe.json":
                recipe = json.loads(data)
                for key, value in changes.items():
                    known = recipe.get(key)
                    recipe[key] = {**known, **value} if isinstance(known, dict) else value
                data = json.dumps(recipe).encode()
            (directory / name).write_bytes(data)
    return out


def test_a_recipe_of_version_1_is_still_read(exported: Make, tmp_path: Path) -> None:
    source = exported("jetson", "fp16", jetpack="6.2")
    preprocessing = {"cast": "graph", "transpose": "graph", "normalise": "graph", "runs_on": "gpu"}
    first = {"recipe_version": 1, "opset": 17, "preprocessing": preprocessing}
    old = with_recipe(source, tmp_path / "bundle", first)
    assert read_recipe(open_bundle(old)) == read_recipe(open_bundle(source))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe_version": 3}, "expected recipe_version 2, got 3; update mdpose-edge"),
        ({"jetson": {"device": "agx-2030"}}, "at jetson.device, got agx-2030; update mdpose-edge"),
    ],
)
def test_a_recipe_of_the_future_is_refused(
    exported: Make, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    bundle = with_recipe(exported("jetson", "fp16", jetpack="6.2"), tmp_path / "bundle", changes)
    with pytest.raises(MdposeError, match=message):
        read_recipe(open_bundle(bundle))
