"""TensorRT's backend runs plans, and a plan is for one GPU and version: the server builds its own, by this script."""

from __future__ import annotations

import shlex
from pathlib import Path

from mdpose_edge.bundle import Bundle
from mdpose_edge.trt.recipe import read_recipe
from mdpose_edge.trt.trtexec import trtexec_commands

PLAN_SCRIPT = "build_plan.sh"
PLAN_FILE = "model.plan"
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where NVIDIA's images have it."""
_REPLACED = ("--onnx", "--saveEngine")


def write_plan_script(path: Path, bundle: Bundle, max_batch: int) -> None:
    """Write the script that builds the plan of the model whose folder it is in, for 1 to `max_batch` images.

    Args:
        path: the script; model.onnx is beside it, and the plan goes to 1/.
        bundle: for tensorrt, whose recipe says how.
        max_batch: most images at a time, for which the plan is tuned.

    Raises:
        BundleError: the bundle has no recipe, or one of another version.
    """
    commands = trtexec_commands(bundle, read_recipe(bundle))
    lines = [
        "#!/bin/sh",
        "# Builds this model's plan. Run it once on the server, in Triton's image, on the GPU that will serve; again",
        f"# after a change of image, driver or GPU. It is for {commands[-1][0]}.",
        "set -eu",
        'cd "$(dirname "$0")"',
        _command(commands[-1][1], bundle, max_batch),
        f"mv 1/.{PLAN_FILE} 1/{PLAN_FILE}",
    ]
    lines[3:3] = [
        line
        for versions, command in commands[:-1]
        for line in (f"# {versions}:", f"#   {_command(command, bundle, max_batch)}")
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o755)


def _command(command: str, bundle: Bundle, max_batch: int) -> str:
    """Turn the command for the bundle's own batch into one for any up to max_batch."""
    size = bundle.spec.input
    _, *words = [word for word in shlex.split(command) if not word.startswith(_REPLACED)]
    shapes = {"min": 1, "opt": max_batch, "max": max_batch}
    words += [f"--{kind}Shapes={size.name}:{n}x{size.height}x{size.width}x3" for kind, n in shapes.items()]
    return f"${{TRTEXEC:-{TRTEXEC}}} --onnx=model.onnx --saveEngine=1/.{PLAN_FILE} {shlex.join(words)}"
