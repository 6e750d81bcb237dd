"""ImageNet weights for a backbone, through timm: from a file, the Hugging Face hub's cache, or the hub."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from safetensors import SafetensorError, safe_open

from mdpose_edge.errors import ConfigError

WEIGHTS_FILE = "model.safetensors"
"""Of a timm model on the hub."""
REACH_TIMEOUT_S = 5.0
"""How long the hub may take to answer at all, before a download of some minutes begins or is given up."""


def pretrained_options(name: str, pretrained: bool | str) -> dict[str, Any]:
    """Return what makes timm.create_model load the weights of a backbone.

    Args:
        name: a timm model.
        pretrained: a .safetensors file with that model's weights; True for the hub's cache or the hub; False for none.

    Raises:
        ConfigError: the file cannot be used, timm knows of no weights, or they are neither in the cache nor in reach;
            the sentence names the file that is missing.
    """
    if pretrained is False:
        return {"pretrained": False}
    if isinstance(pretrained, str):
        _check_file(name, Path(pretrained))
        return _from_file(pretrained)
    repository, revision = _hub_place(name)
    cached = huggingface_hub.try_to_load_from_cache(repository, WEIGHTS_FILE, revision=revision)
    if isinstance(cached, str):
        return _from_file(cached)
    _check_reach(name, repository, revision)
    return {"pretrained": True}


def _hub_place(name: str) -> tuple[str, str | None]:
    """Return the repository and revision where the hub keeps a backbone's weights."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ConfigError(
            "pretrained",
            expected="a backbone whose ImageNet weights timm has on the hub",
            got=name,
            do="set pretrained=false or pretrained=FILE.safetensors, or choose another backbone",
        )
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, revision or None


def _from_file(path: str) -> dict[str, Any]:
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}


def _check_reach(name: str, repository: str, revision: str | None) -> None:
    """Ask the hub once for the file's size: the download itself would retry for most of a minute."""
    url = huggingface_hub.hf_hub_url(repository, WEIGHTS_FILE, revision=revision)
    try:
        huggingface_hub.get_hf_file_metadata(url, timeout=REACH_TIMEOUT_S)
    except (OSError, _transport_error()) as error:
        raise unreachable(name, error) from error


def unreachable(name: str, error: Exception) -> ConfigError:
    """Say which file of a backbone is missing and where to put it."""
    repository, _ = _hub_place(name)
    return ConfigError(
        "pretrained",
        expected=f"ImageNet weights of {name} from the Hugging Face hub or its cache",
        got=" ".join(str(error).split()).partition(". ")[0] or type(error).__name__,
        do=f"fetch {WEIGHTS_FILE} of {repository} where there is a network and set pretrained=FILE, or copy the "
        f"cache's folder models--{repository.replace('/', '--')} (HF_HOME/hub, else ~/.cache/huggingface/hub), or set "
        "pretrained=false",
    )


def _transport_error() -> type[Exception]:
    """Return the base of what the hub's HTTP library raises; which library that is changes with the hub's version."""
    library = type(huggingface_hub.get_session()).__module__.partition(".")[0]
    error: type[Exception] = importlib.import_module(library).HTTPError
    return error


def _check_file(name: str, path: Path) -> None:
    """Refuse a file that is not of this backbone: timm would load what fits, and leave the rest random."""
    do = f"give {WEIGHTS_FILE} of timm's {name}"
    if not path.is_file():
        raise ConfigError("pretrained", expected="a weights file", got=f"no such file: {path}", do=do)
    if path.suffix != ".safetensors":
        raise ConfigError("pretrained", expected="a .safetensors file", got=str(path), do=do)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ConfigError(
            "pretrained", expected=f"a whole safetensors file at {path}", got=str(error), do=do
        ) from error
    wanted = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    for key, tensor in wanted.items():
        expected, got = tuple(tensor.shape), shapes.get(key)
        if expected != got:
            shown = "no such tensor" if got is None else f"shape {got}"
            raise ConfigError("pretrained", expected=f"shape {expected} of {key} in {path}", got=shown, do=do)
