"""Packages `tensorrt` and `pycuda` for other processes: the stand-ins of this folder, found on PYTHONPATH.

A script that starts processes of its own, as scripts/gpu/prove_tensorrt.py does, meets them there as on a device.
"""

from __future__ import annotations

from pathlib import Path

_SHIM = """import sys
from tests.unit.trt import stand_ins
sys.modules.update(stand_ins.modules({version!r}, error={error!r}))
"""
_found: dict[str, object] = {}


def write_packages(folder: Path, version: str, *, error: float = 0.0) -> Path:
    """Write both packages into a folder for PYTHONPATH.

    Args:
        folder: a new one.
        version: of TensorRT.
        error: added to every output of an engine.
    """
    folder.mkdir()
    for name in ("tensorrt", "pycuda"):
        (folder / f"{name}.py").write_text(_SHIM.format(version=version, error=error))
    return folder


def modules(version: str, *, error: float) -> dict[str, object]:
    """Return the modules of this process by name, the same ones each time: one machine is behind them."""
    if not _found:
        from tests.unit.trt.fake_pycuda import Machine, fake_pycuda
        from tests.unit.trt.fake_tensorrt import Knobs, fake_tensorrt

        machine = Machine()
        package, driver = fake_pycuda(machine)
        trt = fake_tensorrt(version, machine, Knobs(error=error))
        _found.update({"tensorrt": trt, "pycuda": package, "pycuda.driver": driver})
    return _found
