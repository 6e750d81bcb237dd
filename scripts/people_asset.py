"""Pack a trained model into mdpose_edge/assets: weights in float16, half the size and no measurable difference.

    python scripts/people_asset.py runs/people/model.safetensors people_mobilenetv2.safetensors

prints the sha256 for mdpose_edge/shipped.py. Given last.safetensors of a run that averages its weights, it takes the
average.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mdpose_edge.checkpoint import read_checkpoint, save_checkpoint
from mdpose_edge.common.files import file_sha256
from mdpose_edge.families.mdpose.heads import MERGING
from mdpose_edge.shipped import ASSETS

AVERAGED = "ema/module."
"""Tensors of the averaged network in a checkpoint's state."""


def pack(source: Path, out: Path) -> None:
    """Write the finished weights of a run, matrices in float16, biases and batch norms as they are."""
    checkpoint = read_checkpoint(source)
    averaged = {k.removeprefix(AVERAGED): v for k, v in checkpoint.state.items() if k.startswith(AVERAGED)}
    weights = averaged or checkpoint.weights
    note = "exponential moving average of the weights" if averaged else checkpoint.weights_are
    spec = replace(checkpoint.spec, decode=MERGING)
    save_checkpoint(out, spec, {k: _half(v) for k, v in weights.items()}, weights_are=note)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.ndim > 1 and tensor.is_floating_point() else tensor


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    pack(args.source, ASSETS / args.name)
    print(
        f"{ASSETS / args.name}: {(ASSETS / args.name).stat().st_size / 1e6:.1f} MB, {file_sha256(ASSETS / args.name)}"
    )


if __name__ == "__main__":
    main()
