"""`mdpose-edge doctor`: what is installed here, and does it work."""

from __future__ import annotations

from itertools import groupby

import typer

from mdpose_edge.commands.console import Force, JsonFile, progress_shown, write_json


def doctor(json_file: JsonFile = None, force: Force = False) -> None:
    """Say what is installed and works: 0 all of it, 1 something is broken. Installs nothing."""
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.doctor.run import diagnose

    check_outputs({"--json": json_file}, [], force=force)
    with progress_shown("starting engines") as report:
        found = diagnose(progress=report)
    write_json(json_file, found.to_json_dict())
    width = max(len(finding.name) for finding in found.findings)
    for topic, findings in groupby(found.findings, key=lambda finding: finding.topic):
        typer.echo(f"\n{topic}")
        for finding in findings:
            typer.echo(f"  {finding.state:<7}{finding.name:<{width}}  {finding.found}")
            if finding.remedy and finding.state != "absent":
                typer.echo(f"  {'':<7}{'':<{width}}  -> {finding.remedy}")
    broken = [finding.name for finding in found.findings if finding.state == "broken"]
    untried = [finding.name for finding in found.findings if finding.topic == "engines" and finding.state == "note"]
    verdict = f"broken: {', '.join(broken)}" if broken else "all that is installed works"
    typer.echo(f"\n{verdict}" if broken or not untried else f"\nnot tried: {', '.join(untried)}")
    if not found.healthy:
        raise typer.Exit(1)
