"""A full disk under every command: `python -m tests.campaign.full_disk`, as root, who may mount one.

Each command runs on the good inputs where there is room for half of what it writes, and for a page of it: it must end
in one sentence, with nothing half-written.
"""

from __future__ import annotations

import argparse
import mmap
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.campaign.child import Result, fork, run_words
from tests.campaign.disk import disk
from tests.campaign.goods import COMMANDS, Command, new_goods
from tests.campaign.run import contents, faults_of


def run_on_disk(
    name: str, command: Command, goods: Path, folder: Path, size: int | None
) -> tuple[Result, list[str], int]:
    """Return what the command did, what it must not have done, and how many bytes it left."""
    case = folder / "case"
    (case / "out").mkdir(parents=True)
    for read in command.reads:
        (shutil.copytree if (goods / read).is_dir() else shutil.copy)(goods / read, case / read)
    with disk(case / "out", size):
        before = contents(case)
        result = fork(run_words(list(command.words)), folder, command.limit_s)
        faults = faults_of(name, result, before, folder, folder / "no truth")
        written = sum(path.stat().st_size for path in (case / "out").rglob("*") if path.is_file())
    if size is not None and result.code != 2:
        faults.append(f"exit code {result.code}, where 2 was due")
    return result, faults, written


def campaign(work: Path, names: list[str]) -> int:
    """Run commands on full disks, print each fault, and give their number."""
    goods = new_goods(work)
    failed = tried = 0
    for name in names:
        folder = work / name.replace(" ", "-")
        _, _, written = run_on_disk(name, COMMANDS[name], goods, folder / "room", None)
        sizes = sorted({mmap.PAGESIZE, written // 2 // mmap.PAGESIZE * mmap.PAGESIZE} - {0})
        for size in [size for size in sizes if size < written]:
            result, faults, _ = run_on_disk(name, COMMANDS[name], goods, folder / str(size), size)
            tried, failed = tried + 1, failed + bool(faults)
            if faults:
                last = (result.err.strip().splitlines() or [""])[-1]
                print(f"FAULT {name} | {size} of {written} bytes | {'; '.join(faults)} | {last}", flush=True)
    print(f"{tried} runs on a full disk, {failed} faults")
    return failed


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, help="So many commands, drawn by --seed. Default: all.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="Where the runs stay. Default: a new temporary folder.")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="full-disk-")) if given.work is None else given.work
    names = [name for name, command in COMMANDS.items() if any("out/" in word for word in command.words)]
    if given.count is not None:
        names = random.Random(given.seed).sample(names, given.count)
    failed = campaign(work, names)
    if not failed and given.work is None:
        shutil.rmtree(work)
    sys.exit(int(failed > 0))


if __name__ == "__main__":
    main()
