"""`mdpose-edge build`: a bundle becomes an engine, on the device that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdpose_edge.commands.console import JsonFile, figure_text, print_table, progress_shown, write_json


def build(
    bundle: Annotated[Path, typer.Argument(help="A bundle that was exported with --target tensorrt or jetson.")],
    cache: Annotated[
        Path | None, typer.Option(help="The folder of engines. Default: $MDPOSE_EDGE_ENGINES, else inside the bundle.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="MiB that a kernel may use beside the tensors. Default: the recipe's.")
    ] = None,
    nvdla_core: Annotated[int | None, typer.Option(min=0, help="The NVDLA core. Default: the recipe's.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build anew even if there is an engine, and replace whatever --json names.")
    ] = False,
    show_trtexec: Annotated[
        bool, typer.Option("--show-trtexec", help="Print trtexec's command lines for this bundle, and build nothing.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Build a bundle's TensorRT engine on this device, try it, and keep it."""
    from mdpose_edge.common.outputs import check_outputs

    check_outputs({"--json": json_file}, [bundle], force=force)
    if show_trtexec:
        _print_commands(bundle, nvdla_core)
        return
    from mdpose_edge.trt.build import build_engine

    with progress_shown("building") as report:
        built = build_engine(
            bundle, cache=cache, workspace_mib=workspace, nvdla_core=nvdla_core, force=force, progress=report
        )
    document = built.to_dict()
    write_json(json_file, document)
    _print_findings(document)
    typer.echo(str(built.path))


def _print_commands(bundle: Path, nvdla_core: int | None) -> None:
    from mdpose_edge.bundle import open_bundle
    from mdpose_edge.trt.recipe import read_recipe, recipe_for_core
    from mdpose_edge.trt.trtexec import trtexec_commands

    opened = open_bundle(bundle)
    recipe = recipe_for_core(opened, read_recipe(opened), nvdla_core)
    for versions, command in trtexec_commands(opened, recipe):
        typer.echo(f"# {versions}\n{command}")


def _print_findings(document: dict[str, Any]) -> None:
    found = document["inspection"]
    kinds = sorted({*found["asked"], *found["built"]})
    rows = [(kind, str(found["asked"].get(kind, 0)), str(found["built"].get(kind, 0))) for kind in kinds]
    print_table("convolutions", ("precision", "asked", "built"), rows)
    errors = [
        (name, figure_text(e["largest_error"]), figure_text(e["mean_error"]))
        for name, e in document["self_test"].items()
    ]
    print_table("self-test, relative", ("output", "largest error", "mean error"), errors)
    where = "there already" if document["cached"] else f"built in {document['build_seconds']} s"
    typer.echo(f"{found['layers']} layers, {found['nvdla_layers']} on NVDLA, {found['reformats']} reformats; {where}")
