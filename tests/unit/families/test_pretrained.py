"""ImageNet weights: from a file, from the hub's cache without asking the hub, and a quick sentence where neither is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mdpose_edge.errors import ConfigError
from mdpose_edge.families.mdpose.network import MDPoseNetwork, NetworkConfig, make_spec
from mdpose_edge.families.pretrained import WEIGHTS_FILE, pretrained_options
from mdpose_edge.spec import InputSpec

BACKBONE = "test_resnet"
LONGEST_S = 30
"""Of the whole process, most of it torch's start-up; the hub's own retries alone take longer."""

SCRIPT = """
import sys, time
from mdpose_edge.errors import ConfigError
from mdpose_edge.families.pretrained import pretrained_options
start = time.monotonic()
try:
    options = pretrained_options(sys.argv[1], True)
    print(options["pretrained_cfg_overlay"]["file"])
except ConfigError as error:
    print(error)
print(time.monotonic() - start)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a timm model, in the form in which the hub has trained ones."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / WEIGHTS_FILE
    save_file(timm.create_model(BACKBONE, pretrained=False).state_dict(), path)
    return path


def ask(name: str, **environment: str) -> tuple[str, float]:
    """Ask in a process of its own for a backbone's weights; the hub reads its settings when it is imported."""
    inherited = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name], env=inherited | environment, capture_output=True, text=True, check=True
    )
    answer, seconds = done.stdout.splitlines()
    return answer, float(seconds)


def test_file_becomes_the_backbone_turned_to_bgr(weights: Path) -> None:
    spec = make_spec(NetworkConfig(BACKBONE, channels=16, head_convs=2), InputSpec(64, 64))
    network = MDPoseNetwork(spec, pretrained=str(weights))
    torch.manual_seed(1)
    source = timm.create_model(BACKBONE, pretrained=False).state_dict()
    loaded = {name.removeprefix("backbone."): value for name, value in network.state_dict().items()}
    assert torch.equal(loaded["conv1.0.weight"], source["conv1.0.weight"].flip(1))
    shared = [name for name in source if name in loaded and name != "conv1.0.weight"]
    assert len(shared) > 20 and all(torch.equal(loaded[name], source[name]) for name in shared)


def test_file_of_another_backbone_is_refused_rather_than_half_loaded(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrained: expected shape .* of .*, got .*give model.safetensors of timm"):
        pretrained_options("resnet18", str(weights))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got no such file"):
        pretrained_options(BACKBONE, str(tmp_path / "none.safetensors"))
    (tmp_path / "a.pth").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"a \.safetensors file"):
        pretrained_options(BACKBONE, str(tmp_path / "a.pth"))
    (tmp_path / "a.safetensors").write_bytes(b"short")
    with pytest.raises(ConfigError, match="a whole safetensors file"):
        pretrained_options(BACKBONE, str(tmp_path / "a.safetensors"))


def test_backbone_without_known_weights_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="weights timm has on the hub, got mobilenetv2_035"):
        pretrained_options("mobilenetv2_035", True)


def test_cache_is_read_without_the_hub_and_its_absence_names_the_file(tmp_path: Path, weights: Path) -> None:
    """The endpoint answers nobody: a port of this machine on which nothing listens."""
    hub = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    repository = timm.get_pretrained_cfg("dla34").hf_hub_id
    sentence, seconds = ask("dla34", **hub)
    assert sentence.startswith("pretrained: expected ImageNet weights of dla34") and seconds < LONGEST_S
    assert f"{WEIGHTS_FILE} of {repository}" in sentence and "pretrained=FILE" in sentence
    assert "models--timm--dla34.in1k" in sentence and "pretrained=false" in sentence

    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    cached = folder / "snapshots" / "0123" / WEIGHTS_FILE
    cached.write_bytes(weights.read_bytes())
    assert ask("dla34", **hub)[0] == str(cached)
