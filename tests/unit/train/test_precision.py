"""`precision: auto` takes what is faster here, says so, and keeps it; the command's threads wait passively."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train.config import ScheduleConfig
from mdpose_edge.train.loop import RESUME_FILE, train
from mdpose_edge.train.precision import Arithmetic, autocast, faster_precision, native_precision
from tests.unit.train.crude_people import tiny_config

CPU = torch.device("cpu")
SMALL = {"network": NetworkConfig(backbone="test_resnet", channels=16, head_convs=2)}


class Slow(nn.Module):
    """A network that takes its time in one arithmetic."""

    def __init__(self, slow: torch.dtype) -> None:
        super().__init__()
        self.slow, self.layer, self.norm = slow, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = self.layer(images.float().permute(0, 3, 1, 2))
        if x.dtype == self.slow:
            time.sleep(0.05)
        return (self.norm(x),)


@pytest.mark.parametrize(("slow", "fast"), [(torch.float32, "bf16"), (torch.bfloat16, "fp32")])
def test_the_faster_arithmetic_is_found_and_the_network_left_alone(slow: torch.dtype, fast: Arithmetic) -> None:
    network = Slow(slow)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    chosen, seconds = faster_precision(network, torch.zeros(2, 8, 8, 3, dtype=torch.uint8), lambda outputs: outputs)
    assert chosen == fast and set(seconds) == {"fp32", "bf16"} and max(seconds.values()) > 0.05
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.layer.weight.grad is None


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_named_precision_is_what_the_network_computes_in(precision: Arithmetic, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert nn.Conv2d(3, 4, 3)(torch.zeros(1, 3, 8, 8)).dtype == dtype


@pytest.mark.skipif(native_precision(CPU) != "bf16", reason="nothing to choose between: this CPU has no bfloat16")
def test_choice_is_told_and_kept_on_resume(crude_people: Path, tmp_path: Path) -> None:
    told: list[str] = []
    config = tiny_config(**SMALL, schedule=ScheduleConfig(iterations=4), precision="auto", checkpoint_every=2)
    train(config, crude_people, tmp_path / "run", note=told.append)
    last = tmp_path / "run" / RESUME_FILE
    progress = read_checkpoint(last).progress
    assert progress is not None and progress["precision"] in ("fp32", "bf16")
    assert len(told) == 1 and told[0].startswith(f"precision: {progress['precision']} (")
    other = "fp32" if progress["precision"] == "bf16" else "bf16"
    _rewrite_progress(last, {**progress, "precision": other, "iteration": 2})
    train(config, crude_people, tmp_path / "run", resume=True, note=told.append)
    again = read_checkpoint(last).progress
    assert again is not None and again["precision"] == other and len(told) == 1


def _rewrite_progress(path: Path, progress: dict[str, object]) -> None:
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {**metadata, "progress": json.dumps(progress)})


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP, which torch brings on Linux")
def test_command_waits_passively_unless_told_otherwise(tmp_path: Path) -> None:
    script = "import mdpose_edge.cli as cli; cli.main()"
    command = [sys.executable, "-W", "ignore", "-c", script, "train", "none.yaml", "--data", ".", "--out", "run"]
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    shown = []
    for given in ({}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        asked = environment | {"OMP_DISPLAY_ENV": "VERBOSE"} | given
        done = subprocess.run(command, cwd=tmp_path, env=asked, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        shown.append(done.stderr)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown[0] and "GOMP_SPINCOUNT = '0'" in shown[0]
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in shown[1]
