"""The gate within an export: what is about to be a bundle is held against the float graph on validation data.

The reference is the float ONNX graph on onnxruntime, which is what torch computes (parity.py); for that graph itself it
is the checkpoint on torch. Graphs for TensorRT are run by onnxruntime as they are written, which is what their Q/DQ
nodes say; where the graph is float32 and the device alone makes it float16 or int8, there is nothing to measure here,
and validation is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mdpose_edge.bundle import SPEC_FILE, draft_bundle
from mdpose_edge.calib.layers import float_nodes
from mdpose_edge.check.gate import Check, check, record
from mdpose_edge.check.report import write_report
from mdpose_edge.errors import GateError
from mdpose_edge.export.accuracy import LayerCost, describe, find_layers, most_returnable, rank_layers, search
from mdpose_edge.export.control_page import control_section
from mdpose_edge.export.onnx import OPSET
from mdpose_edge.export.probe import Probe, compare_speed
from mdpose_edge.export.targets.registry import TARGETS, Int8, Job, Target, Written, measure_target, write_target
from mdpose_edge.export.validation import GateOptions
from mdpose_edge.runtimes.registry import ENGINES

RANKING_IMAGES = 8
"""Of the calibration set, on which graphs are compared to rank layers: the order is at stake, not the figures."""
FLOAT_TARGET = "onnx"
SIMULATOR = "onnxruntime"
"""Runs the graphs of engines that a build machine may lack."""


class CandidateBundle(NamedTuple):
    """One way to write the target, as a bundle of its own."""

    path: Path
    written: Written
    found: Check


def write_validated(
    kind: Target, job: Job, checkpoint: Path, name: str, validation: GateOptions, note: Callable[[str], None]
) -> tuple[Written, dict[str, Any]]:
    """Write a target's files into the job's directory, if the gate holds.

    Args:
        kind: of bundle.
        job: what to write.
        checkpoint: that it comes from.
        name: of the bundle, for reports.
        validation: data and budget.
        note: called with what is going on.

    Returns:
        What was written, its findings with those of the gate; and what `Provenance.accuracy` says of it.

    Raises:
        GateError: the gate fell short, and accuracy control was not asked for or could not help.
        MdposeError: it cannot be written or measured.
    """
    with TemporaryDirectory(dir=job.directory.parent, prefix=f"{job.directory.name}.trials.") as folder:
        gated = _GatedExport(kind, job, measure_target(kind, job), checkpoint, name, validation, note, Path(folder))
        trial, control = gated.plain(), None
        if not trial.found.verdict.held and job.int8 is not None and validation.max_drop is not None:
            trial, control = gated.controlled(trial)
        if validation.report is not None:
            write_report(trial.found, validation.report, "" if control is None else control_section(control))
        if not trial.found.verdict.held:
            raise _fell_short(name, trial.found, validation, control, job.int8 is not None)
        for file in trial.path.iterdir():
            if file.name != SPEC_FILE:
                shutil.copy2(file, job.directory / file.name)
    findings = {"gate": {**trial.found.to_json_dict(), "data": validation.where}}
    if control is not None:
        findings["accuracy_control"] = control
    written = replace(trial.written, findings={**trial.written.findings, **findings})
    return written, _accuracy(trial.found, validation.where)


@dataclass
class _GatedExport:
    """Where an export tries things out."""

    kind: Target
    job: Job
    measured: Any
    """What `measure_target` found, whichever layers stay float."""
    checkpoint: Path
    name: str
    validation: GateOptions
    note: Callable[[str], None]
    folder: Path

    def plain(self) -> CandidateBundle:
        """Write the target as it was asked for, and hold it against the float graph."""
        self.note("writing the graph")
        path, written = self._write(self.kind, self.job, "plain")
        return CandidateBundle(
            path, written, self._check(path, self._reference(), layers=self.validation.report is not None)
        )

    def controlled(self, plain: CandidateBundle) -> tuple[CandidateBundle, dict[str, Any]]:
        """Return layers to float, the costliest first, until the gate holds.

        Returns:
            The trial with the fewest layers in float that held, or the last one; and the control's own report.
        """
        assert self.job.int8 is not None
        costs, unit = self._rank(self.job.int8)
        recording = self.folder / "reference.npz"
        data = self.validation
        record(self._reference(), recording, data.data, data.split, limit=data.limit, data_format=data.data_format)

        total = sum(cost.layer.macs for cost in costs)
        most = most_returnable(costs, total)

        def measure(count: int) -> tuple[bool, CandidateBundle]:
            self.note(f"returning layers to float: the {count} costliest, of {most} at most")
            nodes = [node for cost in costs[:count] for node in cost.layer.nodes]
            path, written = self._write(self.kind, self._returning(nodes), f"float-{count}")
            trial = CandidateBundle(path, written, self._check(path, recording))
            return trial.found.verdict.held, trial

        found = search(most, measure, plain)
        report = describe(costs, unit, found, lambda trial: _drop(trial.found))
        if found.best is None:
            return found.trials[-1].found, report
        if self._runtime is not None:
            return found.best.found, {**report, "speed": None}  # what simulates an engine has a speed of its own
        self.note("comparing the speed")
        paths = {"float": self._reference(), "int8": plain.path, "int8 with layers in float": found.best.found.path}
        return found.best.found, {**report, "speed": compare_speed(paths)}

    def _rank(self, int8: Int8) -> tuple[list[LayerCost], str]:
        """Rank the layers; return what INT8 costs in each, and the unit."""
        graph = self.job.graph
        kept = {node.name for node in float_nodes(graph, int8.keep_float)}
        layers = find_layers(graph, {node.name for node in graph.nodes} - kept)
        probe = Probe(self._reference(), int8.calibration.inputs[:RANKING_IMAGES])

        def distance(keep_float: Collection[str]) -> float:
            path, _ = self._write(self.kind, self._returning(keep_float), "ranked")
            return probe.distance(path, self._runtime)

        def ranked(done: int, total: int, note: str = "", stage: str = "") -> None:
            self.note(f"ranking layers: {done}/{total}, then the costliest return to float")

        return rank_layers(layers, distance, ranked), probe.unit

    def _returning(self, nodes: Collection[str]) -> Job:
        """Return the job with these nodes in float too."""
        assert self.job.int8 is not None
        return replace(self.job, int8=replace(self.job.int8, keep_float=(*self.job.int8.keep_float, *nodes)))

    def _write(self, kind: Target, job: Job, name: str) -> tuple[Path, Written]:
        """Write files as a bundle."""
        path = self.folder / name
        with draft_bundle(path, job.spec) as draft:
            measured = None if job.int8 is None else self.measured
            written = write_target(kind, replace(job, directory=draft.path), measured)
            opset = written.opset or job.spec.opset
            draft.spec = replace(job.spec, quantization=written.quantization, opset=opset)
        return path, written

    @property
    def _runtime(self) -> str | None:
        """The engine of the trials: the target's own, or what computes its graph here."""
        return SIMULATOR if self.job.spec.target in ENGINES[SIMULATOR].simulates else None

    def _reference(self) -> Path:
        """Return the float graph as a bundle, or the checkpoint where the float graph itself is asked about."""
        if (self.job.spec.target, self.job.spec.precision) == (FLOAT_TARGET, "fp32"):
            return self.checkpoint
        path, kind = self.folder / "float", TARGETS[FLOAT_TARGET]
        if not path.exists():
            spec = replace(self.job.spec, target=FLOAT_TARGET, precision="fp32", opset=OPSET, graph=kind.graph)
            self._write(kind, replace(self.job, spec=spec, int8=None), path.name)
        return path

    def _note_images(self, done: int, total: int, note: str = "", stage: str = "") -> None:
        self.note(f"the gate: {done}/{total} images")

    def _check(self, candidate: Path, reference: Path, *, layers: bool = False) -> Check:
        found = check(
            candidate,
            reference,
            self.validation.data,
            self.validation.split,
            runtime=self._runtime,
            limit=self.validation.limit,
            data_format=self.validation.data_format,
            limits=self.validation.limits,
            layers=layers,
            calibration=self.job.int8.calibration if self.job.int8 else (),
            progress=self._note_images,
        )
        reference_name = (
            self.checkpoint.name if reference == self.checkpoint else f"float graph of {self.checkpoint.name}"
        )
        return replace(
            found,
            candidate=replace(found.candidate, name=self.name),
            reference=replace(found.reference, name=reference_name),
        )


def _drop(found: Check) -> float | None:
    """Return the AP points that were lost, or None where AP was not measured."""
    return next((finding.worse for finding in found.verdict.findings if finding.key == "AP"), None)


def _accuracy(found: Check, where: str) -> dict[str, Any]:
    """Return what the spec says of the verdict."""
    figures = {
        finding.key: {"candidate": finding.candidate, "reference": finding.reference}
        for finding in found.verdict.findings
        if finding.unit == "AP points" and finding.candidate is not None
    }
    return {
        "held": found.verdict.held,
        "verdict": found.verdict.sentence(),
        "max_drop": found.limits.accuracy.max_drop,
        "data": where,
        "images": len(found.images),
        "engine": found.candidate.engine,
        "reference": f"{found.reference.name}, {found.reference.engine}",
        "figures": figures,
    }


def _fell_short(
    name: str, found: Check, validation: GateOptions, control: dict[str, Any] | None, is_int8: bool
) -> GateError:
    got = found.verdict.sentence()
    caution = f"; {found.verdict.caution}" if found.verdict.caution else ""
    if control is not None:
        count = control["trials"][-1]["layers_in_float"]
        got = f"one that {got}, even with the {count} costliest layers in float"
        do = f"raise --max-drop, or export --precision fp16{caution}"
        return GateError(name, expected="a graph that holds", got=got, do=do)
    do = (
        "calibrate on other images, or pass --max-drop to return layers to float" if is_int8 else "use --precision fp32"
    )
    more = "" if validation.report else "; --report DIR shows where it arises"
    return GateError(name, expected="a graph that holds", got=f"one that {got}", do=do + more + caution)
