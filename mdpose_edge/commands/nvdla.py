"""`mdpose-edge nvdla`: which layers would leave NVDLA, and why, without a device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdpose_edge.commands.console import Force, JsonFile, write_json

if TYPE_CHECKING:
    from mdpose_edge.nvdla.dry_run import DryRun

SHOWN_NAMES = 2
DEFAULT_PRECISION, DEFAULT_TENSORRT = "fp16", "8.6.2"


class CorePrecision(str, Enum):
    """Arithmetic of NVDLA."""

    fp16 = "fp16"
    int8 = "int8"


def nvdla(
    source: Annotated[Path, typer.Argument(help="A bundle with an ONNX graph, or an .onnx file; without Q/DQ.")],
    precision: Annotated[
        CorePrecision | None,
        typer.Option(
            help="What NVDLA shall compute in. Default: what a bundle for Jetson was exported for, else fp16."
        ),
    ] = None,
    trt: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="The TensorRT that would build it. Default: what a bundle for Jetson was exported for, else 8.6.2.",
        ),
    ] = None,
    json_file: JsonFile = None,
    force: Force = False,
) -> None:
    """List the layers that would run on the GPU instead of NVDLA, and why; no device is needed."""
    from mdpose_edge.common.outputs import check_outputs
    from mdpose_edge.nvdla.dry_run import check_tensorrt, dry_run, load_source
    from mdpose_edge.trt.platforms import find_tensorrt

    check_outputs({"--json": json_file}, [source], force=force)
    asked = None if trt is None else check_tensorrt(find_tensorrt(trt))
    opened = load_source(source)
    made_for = (DEFAULT_PRECISION, DEFAULT_TENSORRT)
    if opened.recipe is not None:
        made_for = (opened.recipe.precision, opened.recipe.tensorrt.at_least)
    found = dry_run(
        opened.graph,
        precision=made_for[0] if precision is None else precision.value,
        tensorrt=asked or find_tensorrt(made_for[1]),
    )
    write_json(json_file, found.to_json_dict())
    total, count = len(found.placements), len(found.placements) - len(found.off_nvdla)
    typer.echo(
        f"{source}, {found.precision}, TensorRT {found.tensorrt}: {count} of {total} nodes on NVDLA, with "
        f"{found.share_of_macs:.2%} of the convolutions' arithmetic, in {_counted(found.loadables, 'loadable')}"
    )
    for line in (*_reasons(found), *found.notes):
        typer.echo(line)


def _reasons(found: DryRun) -> Iterator[str]:
    """Yield a line for each reason, with the nodes that leave for it."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for item in found.off_nvdla:
        groups[item.place, item.op, item.reason].append(item.node)
    for (place, op, reason), names in groups.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        yield f"{place:6}  {len(names):3} {op}: {reason} ({', '.join(names[:SHOWN_NAMES])}{more})"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
