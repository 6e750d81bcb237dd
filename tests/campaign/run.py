"""Bad inputs through every command: `python -m tests.campaign.run --count 1000 --seed 0`, or `--first 17 --count 1`.

One warm process imports everything once and forks a child for each input; no engine is ever open in it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdpose_edge.calib.dataset import open_calibration_set
from tests.campaign.child import Result, fork, run_words
from tests.campaign.damage import damaged, is_slow
from tests.campaign.goods import COMMANDS, new_goods

SENTENCE_BYTES = 2000


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file, and "folder" of every folder, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = _digest(path) if path.is_file() else "folder"
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def faults_of(name: str, result: Result, before: dict[str, str], folder: Path, truth: Path) -> list[str]:
    """List what a command must not have done."""
    after = contents(folder / "case")
    faults = [result.stopped] if result.stopped else []
    if result.code not in (0, 1, 2):
        faults.append(f"exit code {result.code}")
    if "Traceback" in result.err or "Traceback" in result.out:
        faults.append("a traceback")
    if result.code == 2 and not _is_one_sentence(result.err):
        faults.append("not one sentence")
    if result.code == 1 and not (result.err + result.out).strip():
        faults.append("exit code 1 without a word")
    faults += [f"{path} is not what it was" for path in before if after.get(path) != before[path]]
    new = [path for path in after if path not in before]
    if result.code == 2:
        faults += [f"{path} was left" for path in new if not any(Path(path).match(k) for k in COMMANDS[name].keeps)]
    faults += [f"{path} was left" for path in new if Path(path).name.startswith(".") and Path(path).name != ".keep"]
    faults += [f"temporary {path.name} was left" for path in (folder / "tmp").iterdir()]
    if result.code == 0:
        faults += _wrong_values(folder / "case", new, before, truth)
    return faults


def _is_one_sentence(err: str) -> bool:
    said = [line for line in err.splitlines() if line.startswith(("mdpose-edge: ", "Error: "))]
    return len(said) == 1 and len(said[0]) < SENTENCE_BYTES


def _wrong_values(case: Path, new: Iterable[str], before: dict[str, str], truth: Path) -> list[str]:
    faults = []
    for path in filter(lambda path: (case / path).is_file(), new):
        try:
            if path.endswith(".json"):
                _read_strictly((case / path).read_text(errors="surrogateescape"))
            elif path.endswith(".jsonl"):
                for line in (case / path).read_text(errors="surrogateescape").splitlines():
                    _read_strictly(line)
            elif path == "out/set/calib.json":
                open_calibration_set(case / "out" / "set")
        except Exception as error:
            faults.append(f"{path}: {type(error).__name__}: {error}")
    if "out/r.csv" in new and (truth / "out" / "r.csv").is_file():
        faults += _wrong_rows(case, before, truth)
    return faults


def _wrong_rows(case: Path, before: dict[str, str], truth: Path) -> list[str]:
    """Compare the poses of the pictures that are as they were, where the model is too."""
    same = [path for path, digest in contents(truth).items() if before.get(path) == digest and digest != "folder"]
    if any(path.startswith("model/") and path not in same for path in contents(truth)):
        return []
    want, got = (_rows(folder / "out" / "r.csv") for folder in (truth, case))
    pictures = [path for path in same if path.startswith("pictures/")]
    return [f"the poses of {path} are others" for path in pictures if got.get(path) not in (want.get(path), None)]


def _rows(path: Path) -> dict[str, list[list[str]]]:
    rows: dict[str, list[list[str]]] = {}
    with path.open(errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["source"], []).append([v for k, v in row.items() if k not in ("frame", "time_s")])
    return rows


def _read_strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@dataclass
class Figures:
    """Outcomes of a command's damaged inputs of one kind."""

    codes: dict[int, int]
    slowest_s: float = 0.0
    peak_bytes: int = 0
    faults: int = 0


def campaign(seed: int, numbers: Iterable[int], work: Path, *, seconds: float = math.inf) -> int:
    """Run damaged inputs, print each fault with what reproduces it, and a table; give the number of faults."""
    goods, truths = new_goods(work), work / "truths"
    figures: dict[tuple[str, str], Figures] = {}
    failed = tried = 0
    start = time.monotonic()
    for number in numbers:
        if tried and time.monotonic() - start > seconds:
            break
        folder = work / str(number)
        (folder / "case").mkdir(parents=True)
        name, kind, told, words = damaged(folder / "case", goods, seed, number)
        truth = _truth(name, goods, truths)
        before = contents(folder / "case")
        result = fork(run_words(words), folder, COMMANDS[name].limit_s)
        faults = faults_of(name, result, before, folder, truth)
        row = figures.setdefault((name, kind), Figures({}))
        row.codes[result.code] = row.codes.get(result.code, 0) + 1
        row.slowest_s, row.peak_bytes = max(row.slowest_s, result.seconds), max(row.peak_bytes, result.peak_bytes)
        row.faults += bool(faults)
        tried, failed = tried + 1, failed + bool(faults)
        if faults:
            last = (result.err.strip().splitlines() or [""])[-1]
            print(f"FAULT --seed {seed} --first {number} --count 1 | {name} | {told} | {'; '.join(faults)} | {last}")
            print(f"      {' '.join(words)[:300]!a}", flush=True)
        else:
            shutil.rmtree(folder)
    print(f"{tried} inputs, {failed} faults")
    print_table(figures)
    return failed


def _truth(name: str, goods: Path, truths: Path) -> Path:
    """Run a command on the good inputs, once, where its poses are compared."""
    folder = truths / name.replace(" ", "-")
    case = folder / "case"
    if name != "infer pictures" or case.exists():
        return case
    (case / "out").mkdir(parents=True)
    for read in COMMANDS[name].reads:
        shutil.copytree(goods / read, case / read)
    result = fork(run_words(list(COMMANDS[name].words)), folder)
    if result.code != 0:
        raise SystemExit(f"{name} fails on good inputs: {result.err}")
    return case


def print_table(figures: dict[tuple[str, str], Figures]) -> None:
    """Print the outcomes by command and kind of input, in Markdown."""
    print("\n| command | damaged | 0 | 1 | 2 | else | faults | slowest, s | memory, MB |")
    print(f"|{'---|' * 9}")
    for (name, kind), row in sorted(figures.items()):
        counts = [row.codes.get(code, 0) for code in (0, 1, 2)]
        other = sum(row.codes.values()) - sum(counts)
        cells = [name, kind, *counts, other, row.faults, f"{row.slowest_s:.1f}", f"{row.peak_bytes / 1e6:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="Start no input after so long.")
    parser.add_argument("--shuffled", action="store_true", help="Out of order, without the slow ones.")
    parser.add_argument("--work", type=Path, help="Where the inputs of faults stay. Default: a new temporary folder.")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="campaign-")) if given.work is None else given.work
    numbers = list(range(given.first, given.first + given.count))
    if given.shuffled:
        numbers = [number for number in numbers if not is_slow(number)]
        random.Random(given.seed).shuffle(numbers)
    failed = campaign(given.seed, numbers, work, seconds=given.seconds)
    if not failed:
        shutil.rmtree(work)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    main()
