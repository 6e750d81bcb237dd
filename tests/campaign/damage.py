"""Damage to good inputs, drawn from a seed: the same seed and number give the same damage."""

from __future__ import annotations

import copy
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.campaign.goods import COMMANDS, Command

WORDS = "words"
_KINDS = {".jpg": "image", ".png": "image", ".bmp": "image", ".avi": "video", ".mp4": "video", ".npz": "recording"}
_SEEDS = {"calib": "calibration", "model.safetensors": "checkpoint", "model": "bundle", "engine": "bundle"}
_VALUES: tuple[Any, ...] = (
    None, True, "", "x", [], {}, -1, 0, 2.5, 1e308, float("nan"), float("inf"), 10**30, [[[]]],
    "0" * 70_000, [0] * 70_000,
)  # fmt: skip
_MISTYPED = (
    "", "-1", "0", "nan", "inf", "1e999", "9" * 30, "abc", "1,", ",", "0x0", "64x", "-", "--", "absent", "a\nb",
    "\udcff", "in/\udcff.json", "data", "pictures", "model", "model/spec.json", "video.avi", "config.yaml",
    "/dev/null", "/dev/full", "/proc/absent/x", "out", "x" * 300, "http://127.0.0.1:9/x.mp4", "%s%n", "*", "[",
    "~nobody/x", "é",
)  # fmt: skip
_AMOUNTS = ("--images", "--seconds", "--frames", "--warmup", "--size", "--people", "--fps", "--workers", "--num")
"""Options that state how much is to be done: much of it is no hang."""

SLOW, SLOW_EVERY = "doctor", 8
"""It starts every engine in a process of its own, and takes the place of other commands less often."""


def is_slow(number: int) -> bool:
    """Say whether a number means the slow command."""
    return list(COMMANDS)[number % len(COMMANDS)] == SLOW and number // len(COMMANDS) % SLOW_EVERY == 0


def kind_of(path: Path) -> str:
    """Name the kind of input that a file of the good ones is part of."""
    if path.parts[0] in ("data", "pictures") and path.suffix == ".json":
        return "annotations"
    if path.name in ("spec.json", "config.yaml"):
        return path.stem
    return _SEEDS.get(path.parts[0]) or _KINDS[path.suffix]


def damaged(folder: Path, goods: Path, seed: int, number: int) -> tuple[str, str, str, list[str]]:
    """Lay the inputs of a command into a folder, one thing of them damaged.

    Returns:
        The command's name, the kind of input, what was done, and the words of the command.
    """
    rng = random.Random(f"{seed}/{number}")
    name = list(COMMANDS)[number % len(COMMANDS)]
    if name == SLOW and number // len(COMMANDS) % SLOW_EVERY:
        name = rng.choice([other for other in COMMANDS if other != SLOW])
    command = COMMANDS[name]
    for read in command.reads:
        (shutil.copytree if (goods / read).is_dir() else shutil.copy)(goods / read, folder / read)
    (folder / "out").mkdir()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = sorted({kind_of(path.relative_to(folder)) for path in files})
    kind = rng.choice([*kinds, WORDS])
    if kind == WORDS:
        words, told = _damage_words(command, rng)
        return name, kind, told, words
    path = rng.choice([path for path in files if kind_of(path.relative_to(folder)) == kind])
    told = _damage_file(path, files, rng)
    return name, kind, f"{path.relative_to(folder)}: {told}", list(command.words)


def _damage_words(command: Command, rng: random.Random) -> tuple[list[str], str]:
    words = list(command.words)
    at = rng.randrange(1, len(words))
    option, has_value, _ = words[at].partition("=")
    did = rng.choice(["mistyped", "mistyped", "mistyped", "dropped", "doubled", "unknown", "misspelt", "swapped"])
    if did == "dropped" and option in _AMOUNTS:  # the default is what a person wants, a thousand images for instance
        did = "doubled"
    if did == "dropped":
        del words[at]
    elif did == "doubled":
        words.insert(at, words[at])
    elif did == "unknown":
        words.append(rng.choice(["--nothing", "-q", "--json", "--threads=2=3", "more", "--limit=-1", "\udcff"]))
    elif did == "misspelt":
        words[at] = words[at].replace("e", "3", 1) if "e" in words[at] else f"{words[at]}q"
    elif did == "swapped":
        other = rng.randrange(1, len(words))
        words[at], words[other] = words[other], words[at]
    else:
        values = [v for v in _MISTYPED if not (option in _AMOUNTS and v.isdigit())]
        words[at] = f"{option}={rng.choice(values)}" if has_value else rng.choice(values)
    return words, did


def _damage_file(path: Path, files: list[Path], rng: random.Random) -> str:
    ways: dict[str, Callable[[], Any]] = {
        "cut": lambda: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)]),
        "flipped": lambda: path.write_bytes(_flipped(path.read_bytes(), rng)),
        "swapped": lambda: path.write_bytes(
            rng.choice([other for other in files if other != path] or files).read_bytes()
        ),
        "emptied": lambda: path.write_bytes(b""),
        "grown": lambda: path.write_bytes(path.read_bytes() + bytes(rng.randrange(1, 2_000_000))),
        "a hole": lambda: path.write_bytes(_with_a_hole(path.read_bytes(), rng)),
        "removed": path.unlink,
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "noise": lambda: path.write_bytes(rng.randbytes(rng.randrange(1, 4096))),
    }
    if path.suffix in (".json", ".yaml"):
        structured = {"mistyped": _mistype, "a key gone": _drop, "doubled": _double}
        for name, change in structured.items():
            ways[name] = lambda change=change: _rewrite(path, change, rng)
        ways["bomb"] = lambda: path.write_text("[" * 200_000)
    if path.suffix in (".png", ".bmp"):
        ways["huge"] = lambda: path.write_bytes(_huge(path.read_bytes(), path.suffix, rng))
    way = rng.choice(list(ways))
    if path.suffix in (".json", ".yaml") and rng.random() < 0.5:
        way = rng.choice(["mistyped", "a key gone", "doubled"])
    ways[way]()
    return way


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 8, 64])):
        changed[rng.randrange(min(len(changed), rng.choice([256, len(changed)])))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _with_a_hole(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    length = min(rng.randrange(1, 5000), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def _huge(data: bytes, suffix: str, rng: random.Random) -> bytes:
    side = rng.choice([20_000, 60_000, 2**31 - 1])
    changed = bytearray(data)
    struct.pack_into(*((">II", changed, 16) if suffix == ".png" else ("<II", changed, 18)), side, side)
    return bytes(changed)


def _places(node: Any) -> list[tuple[Any, Any]]:
    """List every container with each of its keys; long lists of numbers by their first few."""
    keys = list(node) if isinstance(node, dict) else list(range(min(len(node), 6))) if isinstance(node, list) else []
    return [(node, key) for key in keys] + [place for key in keys for place in _places(node[key])]


def _mistype(node: Any, rng: random.Random) -> None:
    container, key = rng.choice([(node, key) for node, key in _places(node) if key != "iterations"])
    container[key] = copy.deepcopy(rng.choice(_VALUES))


def _drop(node: Any, rng: random.Random) -> None:
    container, key = rng.choice(_places(node))
    del container[key]


def _double(node: Any, rng: random.Random) -> None:
    container, key = rng.choice(_places(node))
    if isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    else:
        container[f"{key}_"] = container[key]


def _rewrite(path: Path, change: Callable[[Any, random.Random], None], rng: random.Random) -> None:
    is_json = path.suffix == ".json"
    node = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    change(node, rng)
    path.write_text(json.dumps(node) if is_json else yaml.safe_dump(node))
