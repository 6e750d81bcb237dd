"""Bundles for TensorRT of a tiny real network, and a device that is none: see fake_tensorrt.py, fake_pycuda.py."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mdpose_edge.bundle import open_bundle
from mdpose_edge.trt import graph, host
from tests.artifacts import SIZE, Artifacts, single_threaded
from tests.unit.trt.fake_pycuda import Machine, fake_pycuda

JETSON_RELEASES = {
    "5.1": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref",
    "6.0": "# R36 (release), REVISION: 3.0, GCID: 36191598, BOARD: generic",
    "6.1": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic",
    "6.2": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    "7.2": "# R39 (release), REVISION: 2.0, GCID: 44000000, BOARD: generic",
    "later than the table": "# R99 (release), REVISION: 1.0, GCID: 50000000, BOARD: generic",
    "unreadable": "nothing that is known",
}
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def exported(artifacts: Artifacts, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Export the tiny network for a device; each bundle is made once and not to be written to."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from mdpose_edge.export.bundle import export_checkpoint
    from mdpose_edge.export.options import ExportOptions
    from mdpose_edge.spec import InputSpec
    from tests.unit.calib.frames import make_small_set

    folder = tmp_path_factory.mktemp("exported")
    made: dict[object, Path] = {}

    def export(target: str, precision: str = "fp16", batch: int = 1, **options: Any) -> Path:
        key = (target, precision, batch, *sorted(options.items()))
        if key not in made:
            calib = None
            if precision == "int8":
                calibration = folder / "calibration"
                if not calibration.exists():
                    make_small_set(calibration, spec=InputSpec(SIZE, SIZE))
                calib = calibration / "calib"
            chosen = ExportOptions(target, precision, batch, calib=calib, allow_few=calib is not None, **options)
            with single_threaded():
                made[key] = export_checkpoint(artifacts.checkpoint(), folder / str(len(made)), chosen).path
        return made[key]

    return export


@pytest.fixture
def bundle(exported: Make, tmp_path: Path) -> Make:
    """Export as above, and give a copy of one's own, where engines may be put."""

    def copy(target: str, precision: str = "fp16", batch: int = 1, **options: Any) -> Path:
        return Path(shutil.copytree(exported(target, precision, batch, **options), tmp_path / "bundle"))

    return copy


@dataclass
class FakeDevice:
    """A device under a test's control."""

    machine: Machine
    knobs: Any
    trt: Any


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakeDevice]:
    """Install a device with one version of TensorRT; a desktop GPU unless a JetPack is named."""
    pytest.importorskip("onnxruntime")
    from tests.unit.trt.fake_tensorrt import Knobs, fake_tensorrt

    def install(version: str, *, jetpack: str | None = None, machine_id: str = "ada", **traits: Any) -> FakeDevice:
        machine, knobs = Machine(**traits), Knobs()
        if jetpack is not None:
            machine.integrated, machine.gpu = True, "Orin"
            machine.compute_capability = traits.get("compute_capability", (8, 7))
        trt = fake_tensorrt(version, machine, knobs)
        package, driver = fake_pycuda(machine)
        for name, module in (("tensorrt", trt), ("pycuda", package), ("pycuda.driver", driver)):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(graph, "load_library", lambda: None)
        root = tmp_path / "root"
        (root / "etc").mkdir(parents=True, exist_ok=True)
        release = root / "etc" / "nv_tegra_release"
        release.unlink(missing_ok=True)
        if jetpack is not None:
            release.write_text(JETSON_RELEASES[jetpack])
        (root / "etc" / "machine-id").write_text(f"{machine_id}\n")
        monkeypatch.setattr(host, "ROOT", root)
        monkeypatch.delenv("MDPOSE_EDGE_ENGINES", raising=False)
        return FakeDevice(machine, knobs, trt)

    return install


@pytest.fixture
def quantized_names(exported: Make) -> list[str]:
    """Name the convolutions that int8 is asked for."""
    from mdpose_edge.trt.recipe import read_recipe

    recipe = read_recipe(open_bundle(exported("tensorrt", "int8", trt="8.5")))
    return [name for name, precision in recipe.convolutions.items() if precision == "int8"]
