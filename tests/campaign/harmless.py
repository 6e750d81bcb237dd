"""Changes that mean nothing must change nothing: `python -m tests.campaign.harmless`.

Each command runs a few times on the good inputs, which shows what varies by itself (times), and then once for each
change; all else that it says and writes must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import yaml

from tests.campaign.child import fork, run_words
from tests.campaign.goods import COMMANDS, Command, new_goods
from tests.campaign.values import Values, values_of

Words = list[str]
DIGESTS = ("sha256", "digest", "bytes", ".files.")
"""What a value's place has where it tells of the very bytes of an input."""
MOST_RUNS = 6
"""On the same inputs, to see whether a value that a change seems to have changed varies by itself."""


@dataclass(frozen=True)
class Change:
    """A change that means nothing.

    Args:
        words: makes another command line of one.
        files: changes inputs in their folder.
        environment: of the command.
        wraps: whether lines on the terminal may break elsewhere.
    """

    words: Callable[[Words, Path], Words] = lambda words, folder: words
    files: Callable[[Path], None] = lambda folder: None
    environment: Mapping[str, str] | None = None
    wraps: bool = False


def _options_last_first(words: Words, folder: Path) -> Words:
    options = [word for word in words if word.startswith("--")]
    return [word for word in words if not word.startswith("--")] + options[::-1]


def _command_words(words: Words) -> int:
    return 2 if words[0] in ("synth", "calib", "data") else 1


def _options_before(words: Words, folder: Path) -> Words:
    at = _command_words(words)
    options = [word for word in words if word.startswith("--")]
    return words[:at] + options + [word for word in words[at:] if not word.startswith("--")]


def _values_apart(words: Words, folder: Path) -> Words:
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _absolute(words: Words, folder: Path) -> Words:
    return _with_paths(words, folder, lambda path: str(folder / path))


def _dotted(words: Words, folder: Path) -> Words:
    return _with_paths(words, folder, lambda path: f"./{path}/" if (folder / path).is_dir() else f"./{path}")


def _with_paths(words: Words, folder: Path, change: Callable[[str], str]) -> Words:
    at = _command_words(words)
    return words[:at] + [_with_path(word, folder, change) for word in words[at:]]


def _with_path(word: str, folder: Path, change: Callable[[str], str]) -> str:
    option, has_value, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    is_path = value.startswith("out/") or (folder / value).exists()
    return f"{option}{has_value}{change(value)}" if is_path else word


def _each(folder: Path, pattern: str, rewrite: Callable[[Path], None]) -> None:
    for path in sorted(folder.glob(pattern)):
        rewrite(path)


def _rewritten_json(**style: Any) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        path.write_text(json.dumps(_backwards(json.loads(path.read_text())), **style) + "\n\n")

    def rewrite_all(folder: Path) -> None:
        for pattern in ("data/annotations/*.json", "*/spec.json", "calib/calib.json"):
            _each(folder, pattern, rewrite)

    return rewrite_all


def _backwards(value: Any) -> Any:
    """Return it with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: _backwards(value[key]) for key in reversed(value)}
    return [_backwards(one) for one in value] if isinstance(value, list) else value


def _more_keys(folder: Path) -> None:
    def rewrite(path: Path) -> None:
        data = json.loads(path.read_text())
        data["licenses"] = [{"id": 1}]
        for record in [*data["images"], *data["annotations"]]:
            record["attributes"] = {"occluded": False}
        path.write_text(json.dumps(data))

    _each(folder, "data/annotations/*.json", rewrite)


def _fractions(folder: Path) -> None:
    def rewrite(path: Path) -> None:
        data = json.loads(path.read_text())
        for person in data["annotations"]:
            person["bbox"] = [float(number) for number in person["bbox"]]
            person["keypoints"] = [float(number) for number in person["keypoints"]]
        path.write_text(json.dumps(data))

    _each(folder, "data/annotations/*.json", rewrite)


def _yaml_in_flow(folder: Path) -> None:
    def rewrite(path: Path) -> None:
        text = yaml.safe_dump(_backwards(yaml.safe_load(path.read_text())), default_flow_style=True, sort_keys=False)
        path.write_text(f"# the same\n{text}")

    _each(folder, "*.yaml", rewrite)


def _compressed_otherwise(folder: Path) -> None:
    def rewrite(path: Path) -> None:
        assert cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 0])

    _each(folder, "pictures/*.png", rewrite)


def _linked(folder: Path) -> None:
    for path in [path for path in folder.iterdir() if path.name != "out"]:
        real = folder.parent / f"real-{path.name}"
        path.rename(real)
        path.symlink_to(real)


def _touched(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))


def _hidden_files(folder: Path) -> None:
    for name in ("pictures/._1.jpg", "pictures/.DS_Store", "data/val2017/._1.jpg"):
        if (folder / name).parent.is_dir():
            (folder / name).write_bytes(b"Mac OS X")


CHANGES = {
    "options in another order": Change(words=_options_last_first),
    "options before arguments": Change(words=_options_before),
    "values as words of their own": Change(words=_values_apart),
    "absolute paths": Change(words=_absolute, wraps=True),
    "paths with ./ and /": Change(words=_dotted),
    "JSON in another order": Change(files=_rewritten_json()),
    "JSON in lines": Change(files=_rewritten_json(indent=4, ensure_ascii=False)),
    "keys that nobody reads": Change(files=_more_keys),
    "whole numbers as fractions": Change(files=_fractions),
    "YAML in flow style": Change(files=_yaml_in_flow),
    "PNG compressed otherwise": Change(files=_compressed_otherwise),
    "symbolic links": Change(files=_linked),
    "older files": Change(files=_touched),
    "hidden files": Change(files=_hidden_files),
    "a narrow terminal": Change(environment={"COLUMNS": "40"}, wraps=True),
    "no locale": Change(environment={"LANG": "C", "LC_ALL": "C", "TZ": "Asia/Kolkata"}),
}


def values(command: Command, goods: Path, folder: Path, change: Change) -> Values:
    """Run a command in a new folder on inputs that are changed."""
    case = folder / "case"
    (case / "out").mkdir(parents=True)
    for read in command.reads:
        (shutil.copytree if (goods / read).is_dir() else shutil.copy)(goods / read, case / read)
    change.files(case)
    environment, work = change.environment or {}, run_words(change.words(list(command.words), case))

    def run() -> int:
        os.environ.update(environment)
        return work()

    return values_of(fork(run, folder, command.limit_s), case)


def differences(same: Sequence[Values], got: Values, *, wraps: bool) -> list[str]:
    """Name what a change changed, of all that is alike in the runs without it."""
    passed_over = (*DIGESTS, "stdout") if wraps else DIGESTS
    expected = same[0]
    faults = []
    for where in sorted({where for values in (*same, got) for where in values}):
        alike = all(where in values and values[where] == expected.get(where) for values in same)
        if any(word in where.lower() for word in passed_over) or not (alike or all(where not in v for v in same)):
            continue
        if where not in got or where not in expected or got[where] != expected[where]:
            faults.append(f"{where}: {got.get(where)!r:.80}, was {expected.get(where)!r:.80}")
    return faults


def campaign(work: Path, pairs: list[tuple[str, str]]) -> int:
    """Run commands on changed inputs, print each fault, and give their number."""
    goods = new_goods(work)
    same: dict[str, list[Values]] = {}
    failed = 0
    for number, (name, what) in enumerate(pairs):
        faults = faults_of(name, CHANGES[what], goods, work / str(number), same.setdefault(name, []))
        failed += bool(faults)
        if faults:
            print(f"FAULT {name} | {what} | {len(faults)} values | {'; '.join(faults[:3])}", flush=True)
    print(f"{len(pairs)} runs on inputs that mean the same, {failed} with other values")
    return failed


def faults_of(name: str, change: Change, goods: Path, folder: Path, same: list[Values]) -> list[str]:
    """Run a command on changed inputs, and as often as needed on the same ones, whose values join `same`."""

    def add() -> None:
        same.append(values(COMMANDS[name], goods, folder / f"same-{len(same)}", Change()))

    while len(same) < 2:
        add()
    got = values(COMMANDS[name], goods, folder / "changed", change)
    while (faults := differences(same, got, wraps=change.wraps)) and len(same) < MOST_RUNS:
        add()
    return faults


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, help="So many runs, drawn by --seed. Default: every command and change.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="A command.")
    parser.add_argument("--work", type=Path, help="Where the runs stay. Default: a new temporary folder.")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="harmless-")) if given.work is None else given.work
    pairs = [(name, what) for name in COMMANDS if given.only in (None, name) for what in CHANGES]
    if given.count is not None:
        pairs = random.Random(given.seed).sample(pairs, given.count)
    failed = campaign(work, pairs)
    if not failed and given.work is None:
        shutil.rmtree(work)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    main()
