"""Prove the TensorRT engines on a GPU: build, conformance, accuracy, latency, mismatches; one JSON with all of it.

    trtpy -m scripts.gpu.prove_tensorrt INPUTS OUT --torch-python /usr/bin/python3

INPUTS is what prepare.py wrote. Run in the checkout, with the Python that has tensorrt and pycuda; --torch-python is
one that has torch, for the comparison. The report is written after every step, so that a machine lent for a time never
takes it along.

--dry-run does every step that needs no GPU, with onnxruntime in TensorRT's place where an engine is needed, and says of
each what it did not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.common.files import file_sha256, write_whole
from scripts.gpu import layout, steps
from scripts.gpu.building import build
from scripts.gpu.job import Job, reason
from scripts.gpu.latency import latency
from scripts.gpu.mismatch import mismatch


@dataclass
class Report:
    """What was found so far, on disk after every step."""

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str, step: Callable[[], dict[str, Any]]) -> None:
        """Run a step and keep what it found, or why it failed: whatever it was, the next step begins."""
        print(f"== {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            result = step()
        except Exception as error:
            result = {"failed": reason(error)}
        if "failed" in result:
            print(result["failed"], file=sys.stderr)
        self.found[name] = {**result, "seconds": round(time.monotonic() - started, 1)}
        write_whole(self.path, (json.dumps(self.found, indent=2) + "\n").encode())


def main() -> None:
    """Run every step; exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, help="the folder that prepare.py wrote")
    parser.add_argument("out", type=Path, help="where report, results and engines go")
    parser.add_argument("--torch-python", metavar="PATH", help="an interpreter with torch; else torch is not timed")
    parser.add_argument("--rounds", type=int, default=5, help="of the latency, engines in turn (%(default)s)")
    parser.add_argument("--calls", type=int, default=100, help="in a round, for each engine (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="do what needs no GPU, and say what was left out")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    report = Report(args.out / layout.REPORT)
    job = Job(args.inputs.resolve(), args.out.resolve(), args.dry_run)
    report.run("about", lambda: about(args))
    if "failed" in report.found["about"]:
        sys.exit(1)
    report.run("machine", lambda: steps.machine(job))
    report.run("build", lambda: build(job))
    report.run("conformance", lambda: steps.conformance(job))
    report.run("accuracy", lambda: steps.accuracy(job))
    report.run("latency", lambda: latency(job, args.torch_python, args.rounds, args.calls))
    report.run("mismatch", lambda: mismatch(job, report.found["build"]))
    failed = [name for name, result in report.found.items() if "failed" in result]
    print(f"{report.path}: {'failed: ' + ', '.join(failed) if failed else 'every step ran'}")
    sys.exit(1 if failed else 0)


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Check that the inputs arrived whole, and name what is proved."""
    manifest = json.loads((args.inputs / layout.MANIFEST).read_text(encoding="utf-8"))
    for name, sha256 in manifest.pop("files").items():
        if file_sha256(args.inputs / name) != sha256:
            raise ValueError(f"{name} arrived damaged: bring it again")
    return {
        "dry_run": args.dry_run,
        "toolkit_version": __version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python -m scripts.gpu.prove_tensorrt INPUTS OUT --rounds {args.rounds} --calls {args.calls}",
        "inputs": manifest,
    }


if __name__ == "__main__":
    main()
