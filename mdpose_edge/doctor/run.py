"""Everything that the doctor looks at, in one report."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mdpose_edge import __version__
from mdpose_edge.common.optional import available
from mdpose_edge.common.progress import Progress
from mdpose_edge.doctor.combinations import check_combinations, look_around
from mdpose_edge.doctor.engines import check_engine
from mdpose_edge.doctor.findings import Finding
from mdpose_edge.doctor.packages import check_packages, numbers
from mdpose_edge.machine.facts import machine_identity, machine_state
from mdpose_edge.runtimes.registry import ENGINES

LITTLE_MEMORY_MB = 1000
"""What loading DLA-34 at 736 px takes on a CPU engine, about."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    findings: list[Finding]
    machine: dict[str, Any]
    """"identity" and "state", as on every benchmark's record."""

    @property
    def healthy(self) -> bool:
        """Whether all that is installed works."""
        return all(finding.state != "broken" for finding in self.findings)

    def to_json_dict(self) -> dict[str, Any]:
        """Return it ready for json.dump."""
        return {"toolkit_version": __version__, "healthy": self.healthy, **dataclasses.asdict(self)}


def diagnose(progress: Progress | None = None) -> Diagnosis:
    """Look at packages, engines, combinations, memory and clocks; install and change nothing."""
    identity, state = machine_identity(), machine_state()
    findings, temporary = check_packages(), check_temporary_files()
    for done, name in enumerate(ENGINES, 1):
        if temporary.state != "ok" and available(name):
            found = "not started: no folder for temporary files"
            findings.append(Finding("engines", name, "note", found, temporary.remedy))
        else:
            findings.append(check_engine(name))
        if progress is not None:
            progress(done, len(ENGINES))
    findings += check_combinations(look_around(_gpus(identity["gpus"])))
    findings += [*judge_machine(state), temporary]
    return Diagnosis(findings, {"identity": identity, "state": state})


def check_temporary_files() -> Finding:
    """Say where temporary files go: a container with a read-only root has no place for them, and infer needs none."""
    try:
        return Finding("machine", "temporary files", "ok", tempfile.gettempdir())
    except OSError:
        remedy = "set TMPDIR to a folder that can be written; bench, check, export and train need it"
        return Finding("machine", "temporary files", "note", "no folder for them can be written", remedy)


def judge_machine(state: dict[str, Any]) -> list[Finding]:
    """Say what of the machine's state costs speed."""
    findings = []
    memory = state["memory_available_mb"]
    if isinstance(memory, int) and memory < LITTLE_MEMORY_MB:
        findings.append(Finding("machine", "memory", "note", f"{memory} MB available", "close other programs"))
    else:
        text = memory if isinstance(memory, str) else f"{memory} MB available"
        findings.append(Finding("machine", "memory", "ok", text))
    governor = str(state["governor"])
    if "powersave" in governor:
        remedy = "sudo cpupower frequency-set -g performance, before measuring"
        findings.append(Finding("machine", "governor", "note", governor, remedy))
    else:
        findings.append(Finding("machine", "governor", "ok", governor))
    if state["jetson_clocks"] is False:
        found = f"clocks follow the load; power mode {state['nvpmodel']}"
        findings.append(Finding("machine", "clocks", "note", found, "sudo jetson_clocks, before measuring"))
    return findings


def _gpus(listed: Sequence[dict[str, str]] | str) -> list[tuple[str, tuple[int, int]]]:
    """Read nvidia-smi's compute capabilities, "8.6"; old drivers do not tell them."""
    found = []
    for gpu in [] if isinstance(listed, str) else listed:
        capability = numbers(gpu.get("cc", ""))
        if len(capability) == 2:
            found.append((gpu["name"], (capability[0], capability[1])))
    return found
