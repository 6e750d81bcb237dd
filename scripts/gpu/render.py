"""Turn the report of prove_tensorrt.py into a section of docs/measurements.md, on stdout.

    python -m scripts.gpu.render OUT --inputs INPUTS >> docs/measurements.md

COCO's figures are computed here where the GPU machine had no library for them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdpose_edge.datasets.coco import load_split
from mdpose_edge.evaluate import coco_figures
from scripts.gpu import layout

STEPS = ("about", "machine", "build", "conformance", "accuracy", "latency", "mismatch")
SHOWN_TESTS = 5
"""Of those that failed; the report names all."""
LIMITS = {"fp16": 0.1, "int8": 0.5}
"""AP points that an engine may lose against onnxruntime's float32."""


def main() -> None:
    """Print the section; exit with 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that prove_tensorrt.py wrote")
    parser.add_argument("--inputs", type=Path, required=True, help="the folder that prepare.py wrote")
    args = parser.parse_args()
    report = {name: {"failed": "not reached"} for name in STEPS}
    report |= json.loads((args.out / layout.REPORT).read_text(encoding="utf-8"))
    add_figures(report["accuracy"], args.out, args.inputs)
    print("\n".join(section(report)))
    sys.exit(1 if missed(report) else 0)


def add_figures(accuracy: dict[str, Any], out: Path, inputs: Path) -> None:
    """Compute COCO's figures from the results that came back, where they were not computed there."""
    split = load_split(inputs / layout.DATA, "val")
    for precision in LIMITS:
        if precision in accuracy and accuracy[precision].get("figures", ()) is None:
            results = json.loads((out / accuracy[precision]["results"]).read_text(encoding="utf-8"))
            accuracy[precision]["figures"] = coco_figures(split, results)


def missed(report: dict[str, Any]) -> list[str]:
    """Name what fell short or failed."""
    short = [name for name, result in report.items() if "failed" in result]
    if report["conformance"].get("failed_tests"):
        short.append("conformance")
    short += [f"accuracy in {precision}" for precision, limit in LIMITS.items() if drop(report, precision) > limit]
    short += [f"backbone of {name}" for name, item in engines(report) if item["backbone"].get("wider_than_asked")]
    return short


def drop(report: dict[str, Any], precision: str) -> float:
    """Return the AP points lost; infinite where nothing was measured."""
    found, reference = report["accuracy"].get(precision), report["accuracy"].get("reference")
    figures = found and found.get("figures")
    if not figures or not reference or figures["AP"] is None or reference["AP"] is None:
        return float("inf")
    return float(100 * (reference["AP"] - figures["AP"]))


def engines(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return each engine that was asked for."""
    return ((name, item) for name, item in report["build"].items() if isinstance(item, dict))


def section(report: dict[str, Any]) -> Iterator[str]:
    """Return the lines of the section."""
    about, inputs = report["about"], report["about"]["inputs"]
    if about["dry_run"]:
        yield "## Dry run of scripts/gpu: no GPU, onnxruntime in TensorRT's place. NOT A MEASUREMENT OF TENSORRT."
    else:
        host = report["machine"]["host"]
        yield f"## TensorRT {host['tensorrt']} on {host['gpu']['name']}"
    yield ""
    size = inputs["input"]
    yield (
        f"`{about['command']}`, {about['date']}: the model with sha256 {inputs['checkpoint_sha256'][:12]}... at "
        f"{size['width']}x{size['height']}, {inputs['images']} drawn pictures, INT8 calibrated on "
        f"{inputs['calibration_images']} others."
    )
    yield ""
    yield from _engines(report)
    yield from _accuracy(report)
    yield from _latency(report)
    yield from _rest(report)
    short = missed(report)
    yield f"Short of its aim: {', '.join(short)}." if short else "Every aim was met."


def _engines(report: dict[str, Any]) -> Iterator[str]:
    yield "| engine | convolutions asked | built | backbone in INT8 | built in |"
    yield "|---|---|---|---|---|"
    for name, item in engines(report):
        found, backbone = item.get("inspection"), item["backbone"]
        if found is None:
            asked = f"{backbone['asked_in_int8']} of {backbone['convolutions']} asked for"
            yield f"| {name} | not built{': ' + item['failed'] if 'failed' in item else ''} | | {asked} | |"
            continue
        wider = len(backbone["wider_than_asked"])
        int8 = f"{backbone['asked_in_int8'] - wider} of {backbone['convolutions']}"
        yield f"| {name} | {_counts(found['asked'])} | {_counts(found['built'])} | {int8} | {item['build_seconds']} s |"
    yield ""


def _accuracy(report: dict[str, Any]) -> Iterator[str]:
    found = report["accuracy"]
    if "failed" in found:
        yield f"Accuracy: {found['failed']}\n"
    if "reference" not in found:
        return
    yield f"| AP on {found['images']} pictures | AP | AP50 | lost, points | allowed |"
    yield "|---|---|---|---|---|"
    reference = found["reference"]
    yield f"| onnxruntime, float32 | {_three(reference['AP'])} | {_three(reference['AP50'])} | | |"
    for precision, limit in LIMITS.items():
        figures = found[precision].get("figures")
        if figures is None:
            continue
        lost = f"{drop(report, precision):.2f}"
        name = f"{found['engine']} {precision}"
        yield f"| {name} | {_three(figures['AP'])} | {_three(figures['AP50'])} | {lost} | {limit} |"
    yield ""


def _latency(report: dict[str, Any]) -> Iterator[str]:
    found = report["latency"]
    if "failed" in found:
        yield f"Latency: {found['failed']}\n"
    if "table" not in found:
        return
    about = found["torch"]
    kind = f"{about['torch']} on {about['device']}{', compiled' if about['compiled'] else ''}" if about else "not timed"
    yield f"| host to host, ms; torch: {kind} | p50 | p99 | torch's p50 over it |"
    yield "|---|---|---|---|"
    for name, row in found["table"].items():
        torch = found["table"].get(f"torch, {name.rpartition(', ')[2]}")
        ratio = f"{torch['p50_ms'] / row['p50_ms']:.2f}" if torch else ""
        yield f"| {name} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {ratio} |"
    yield ""


def _rest(report: dict[str, Any]) -> Iterator[str]:
    suite = report["conformance"]
    if "failed" in suite:
        yield f"Conformance: {suite['failed']}"
    else:
        bad = suite["failures"] + suite["errors"]
        passed = suite["tests"] - suite["skipped"] - bad
        yield f"Conformance suite on {suite['engine']}: {passed} passed, {bad} failed, {suite['skipped']} skipped."
        names = suite["failed_tests"]
        yield from (f"- {name}" for name in names[:SHOWN_TESTS])
        if len(names) > SHOWN_TESTS:
            yield f"- and {len(names) - SHOWN_TESTS} more"
    yield ""
    for name, case in report["mismatch"].get("cases", {}).items():
        sentence = case["sentence"].rpartition(": expected ")[2]
        yield f"- {name}: {'refused, for it expected' if case['refused'] else 'ACCEPTED'} {sentence}"
    yield ""


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in found.items())


def _three(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
