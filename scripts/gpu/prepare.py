"""Put all that prove_tensorrt.py needs into one folder that travels to a GPU machine. No GPU is needed here.

    python -m scripts.gpu.prepare runs/dla34_synth/model.safetensors runs/gpu_inputs --pack runs/gpu_inputs.tar.xz

Writes, for TensorRT 8.5: bundles in FP16 and INT8 for batches of 1 and 8; drawn people with what onnxruntime finds in
them; the conformance suite's own bundles with recorded answers; and the network's structure, for the comparison with
torch.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from mdpose_edge import __version__
from mdpose_edge.bundle import open_bundle
from mdpose_edge.calib.make import make_calibration_set
from mdpose_edge.common.files import file_sha256, visible_files
from mdpose_edge.datasets.coco import write_results
from mdpose_edge.evaluate import evaluate
from mdpose_edge.export.bundle import export_checkpoint
from mdpose_edge.export.options import ExportOptions
from mdpose_edge.runtimes.registry import read_model_spec
from mdpose_edge.synth import write_dataset
from scripts.gpu import layout
from tests.artifacts import Artifacts
from tests.conformance.test_engines import FRAMES, VARIANTS, random_images

TENSORRT = "8.5"
SEED = 20_260
"""Of the drawn people; no training set of this project is drawn with it."""
CONFORMANCE_TARGETS = ("tensorrt", "onnx")
"""onnx too, so that the whole way can be tried where there is no GPU."""
DICTIONARY_BYTES = 192 << 20
"""Of the compression: two bundles fit in, and their weights are the same bytes."""


def main() -> None:
    """Prepare the folder, and pack it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the model to prove: DLA-34 at 736 px")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--images", type=int, default=200, help="pictures to measure accuracy on (%(default)s)")
    parser.add_argument("--calibration-images", type=int, default=128, help="pictures to calibrate on (%(default)s)")
    parser.add_argument("--people", type=int, nargs=2, default=(1, 8), metavar=("FEWEST", "MOST"))
    parser.add_argument("--pack", type=Path, metavar="FILE.tar.xz", help="pack the folder into one file too")
    args = parser.parse_args()
    if args.out.exists():
        sys.exit(f"{args.out}: expected a new folder, got an existing one; remove it or choose another.")
    spec = read_model_spec(args.checkpoint)
    calibration = draw(args, (spec.input.width, spec.input.height))
    export(args, calibration)
    shutil.rmtree(calibration)
    record_reference(args)
    record_conformance(args.out / layout.CONFORMANCE)
    write_manifest(args)
    if args.pack:
        pack(args.out, args.pack)


def say(text: str) -> None:
    """Show how far it is."""
    print(text, file=sys.stderr, flush=True)


def draw(args: argparse.Namespace, size: tuple[int, int]) -> Path:
    """Draw the pictures; give the calibration set, made of others than the measured ones."""
    say("drawing people")
    data, calibration = args.out / layout.DATA, args.out / "calibration"
    write_dataset(
        data,
        train_images=args.calibration_images,
        val_images=args.images,
        size=size,
        seed=SEED,
        people=tuple(args.people),
    )
    few = args.calibration_images < 100
    spec = read_model_spec(args.checkpoint).input
    make_calibration_set(data, calibration, spec, split="train", num=args.calibration_images, allow_few=few)
    shutil.rmtree(data / "train2017")
    (data / "annotations" / "person_keypoints_train2017.json").unlink()
    return calibration


def export(args: argparse.Namespace, calibration: Path) -> None:
    """Export every bundle, and the float graph that they are measured against."""
    for engine in layout.ENGINES:
        say(f"exporting {engine.precision}, batch {engine.batch}")
        int8 = engine.precision == "int8"
        export_checkpoint(args.checkpoint, args.out / engine.folder, ExportOptions(
            target="tensorrt", precision=engine.precision, batch=engine.batch, trt=TENSORRT,
            calib=calibration if int8 else None, allow_few=int8 and args.calibration_images < 100,
        ))  # fmt: skip
    export_checkpoint(args.checkpoint, args.out / "float", ExportOptions(target="onnx"))


def record_reference(args: argparse.Namespace) -> None:
    """Measure the float graph on onnxruntime, and keep its structure; the graph itself stays here."""
    say("measuring the float graph on onnxruntime")
    bundle = args.out / "float"
    found = evaluate(bundle, args.out / layout.DATA, "val", runtime="onnxruntime")
    write_results(args.out / layout.REFERENCE_RESULTS, found.results)
    text = json.dumps(found.to_json_dict(), indent=2) + "\n"
    (args.out / layout.REFERENCE_FIGURES).write_text(text, encoding="utf-8")
    structure = describe_network(open_bundle(bundle).graph)
    (args.out / layout.NETWORK).write_text(json.dumps(structure) + "\n", encoding="utf-8")
    shutil.rmtree(bundle)


def describe_network(graph: Path) -> dict[str, Any]:
    """Return a graph's nodes and the shapes of its constants; small constants with their values."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph).graph
    nodes = [
        {
            "op": node.op_type,
            "inputs": list(node.input),
            "output": node.output[0],
            "attributes": {
                item.name: value.decode() if isinstance(value, bytes) else value
                for item in node.attribute
                for value in [helper.get_attribute_value(item)]
            },
        }
        for node in model.node
    ]
    constants = {
        tensor.name: {
            "shape": list(tensor.dims),
            "values": numpy_helper.to_array(tensor).ravel().tolist() if np.prod(tensor.dims) <= 8 else None,
        }
        for tensor in model.initializer
    }
    return {
        "input": model.input[0].name,
        "outputs": [output.name for output in model.output],
        "nodes": nodes,
        "constants": constants,
    }


def record_conformance(out: Path) -> None:
    """Export the conformance suite's bundles, and record what its network gives for what the suite will ask."""
    say("exporting the conformance suite's bundles")
    out.mkdir()
    artifacts = Artifacts(out)
    checkpoint = artifacts.checkpoint()
    for target in CONFORMANCE_TARGETS:
        for precision, batch in VARIANTS:
            folder = out / f"{target}-{precision}-{batch}"
            export_checkpoint(checkpoint, folder, ExportOptions(
                target=target, precision=precision, batch=batch, trt=TENSORRT if target == "tensorrt" else None,
                calib=artifacts.calibration() if precision == "int8" else None, allow_few=precision == "int8",
            ))  # fmt: skip
    reference, heads = artifacts.reference(), {}
    for batch in sorted({batch for _, batch in VARIANTS}):
        images = random_images(read_model_spec(out / f"onnx-fp32-{batch}").input)
        answers = reference(images)
        heads |= {f"{layout.array_key(images.tobytes())}/{name}": tensor for name, tensor in answers.items()}
    np.savez(out / layout.RECORDED_HEADS, **heads)
    poses = {
        f"{layout.array_key(frame.tobytes())}/{name}": array
        for frame, found in zip(FRAMES, artifacts.reference_poses(FRAMES), strict=True)
        for name, array in vars(found).items()
        if isinstance(array, np.ndarray)
    }
    np.savez(out / layout.RECORDED_POSES, **poses)
    checkpoint.unlink()
    for folder in ("calibration", "frames"):
        shutil.rmtree(out / folder)


def write_manifest(args: argparse.Namespace) -> None:
    """Name what was prepared."""
    manifest = {
        "toolkit_version": __version__,
        "tensorrt": TENSORRT,
        "checkpoint_sha256": file_sha256(args.checkpoint),
        "input": vars(read_model_spec(args.checkpoint).input),
        "images": args.images,
        "calibration_images": args.calibration_images,
        "seed": SEED,
        "files": {name: file_sha256(args.out / name) for name in sorted(visible_files(args.out))},
    }
    (args.out / layout.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def pack(folder: Path, out: Path) -> None:
    """Pack the folder so that what its bundles share is stored once; Python's own tarfile unpacks it."""
    say("packing")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 2, "dict_size": DICTIONARY_BYTES}]
    with (
        lzma.open(out, "wb", format=lzma.FORMAT_XZ, filters=filters) as file,
        tarfile.open(fileobj=file, mode="w|") as archive,
    ):
        archive.add(folder, arcname=folder.name)
    say(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
