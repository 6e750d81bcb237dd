"""Tiny real models for the tests: a random network, and every artifact that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mdpose_edge.poses import Poses
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS, InputSpec, KeypointSpec
from tests.unit.calib.frames import write_frames

SIZE = 64
"""Side of the input, px: 64, 16 and 4 cells at strides 8, 16 and 32."""
CALIBRATION_IMAGES = 4
NETWORKS: dict[str, dict[str, Any]] = {
    "mdpose": {"channels": 16, "head_convs": 2},
    "adaptive": {"neck": "pyramid", "channels": 16, "heat_channels": 8, "channels_per_keypoint": 2},
    "mixture_dense": {"channels": 16, "head_channels": 16, "components": 2},
    "das": {"channels": 16, "head_convs": 2},
    "recurrent": {"channels": 16, "hidden": 16, "layers": 2, "people": 2},
    "mixture_dense_boxes": {"channels": 16, "head_channels": 16, "components": 2, "heatmaps": False},
}
"""The options of a tiny network of each family, its backbone aside."""
BOXES = {"mixture_dense_boxes": ("mixture_dense", ("person", "box", "ball"))}
"""Networks of boxes, by a name of their own: the family and the classes."""
THRESHOLDS = {"adaptive": 0.3, "das": 0.2}
"""Scores above which a random network finds some people in a frame; of other families 0.5."""


def write_random_checkpoint(
    path: Path,
    *,
    family: str = "mdpose",
    backbone: str = "test_resnet",
    batch: int = 1,
    weight_factor: float = 1.0,
    keypoints: KeypointSpec = COCO_KEYPOINTS,
) -> Path:
    """Write a checkpoint of a random network, or skip where training is not installed.

    Batch norms and biases are random too, so that folding and the order of things are put to the test.

    Args:
        path: where to write.
        family: a key of NETWORKS; one of BOXES predicts no keypoints.
        backbone: a timm model; the default has 0.4 M parameters.
        batch: images per call.
        weight_factor: multiplies the weights of the pyramid's lateral convolutions.
        keypoints: that it predicts.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    from torch import nn

    from mdpose_edge.checkpoint import save_checkpoint
    from mdpose_edge.families.registry import training_of, training_spec

    torch.manual_seed(0)
    name, classes = BOXES.get(family, (family, ("person",)))
    training = training_of(name)
    config = training.network_config(backbone=backbone, **NETWORKS[family])
    wanted = NO_KEYPOINTS if family in BOXES else keypoints
    spec = training_spec(name, config, InputSpec(SIZE, SIZE, batch=batch), wanted, classes)
    network: Any = training.network(spec)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0.0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.3)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight)
                module.bias.normal_(0.0, 0.3)
        for lateral in network.pyramid.lateral:
            lateral.weight.mul_(weight_factor)
        if family == "recurrent":  # else every state is full, and all steps' logits are alike
            network.decoder.from_features.weight.mul_(0.1)
            network.decoder.heat.weight.mul_(3.0)
    save_checkpoint(path, spec, network.state_dict())
    return path


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep torch to one thread: on tiny networks and a busy machine, its threads mostly wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Artifacts:
    """One random network as checkpoint and as bundles, each made when first asked for."""

    def __init__(self, directory: Path, family: str = "mdpose") -> None:
        self._directory, self._family = directory, family

    def of(self, family: str) -> Artifacts:
        """Return the artifacts of a network of this family."""
        if family == self._family:
            return self
        directory = self._directory / family
        directory.mkdir(exist_ok=True)
        return Artifacts(directory, family)

    def checkpoint(self, batch: int = 1) -> Path:
        path = self._directory / f"batch{batch}.safetensors"
        return path if path.exists() else write_random_checkpoint(path, family=self._family, batch=batch)

    def calibration(self) -> Path:
        """Return a calibration set of a few images of noise, as large as the input."""
        from mdpose_edge.calib.make import make_calibration_set

        path = self._directory / "calibration"
        if not path.exists():
            frames = write_frames(self._directory / "frames", CALIBRATION_IMAGES)
            make_calibration_set(frames, path, InputSpec(SIZE, SIZE), num=CALIBRATION_IMAGES, allow_few=True)
        return path

    def bundle(self, target: str, precision: str = "fp32", batch: int = 1) -> Path:
        """Return an exported bundle; treat it as read-only."""
        from mdpose_edge.export.bundle import export_checkpoint
        from mdpose_edge.export.options import ExportOptions

        path = self._directory / f"{target}-{precision}-{batch}"
        if path.exists():
            return path
        if precision == "int8" and target == "openvino":
            pytest.importorskip("nncf")
        calib = self.calibration() if precision == "int8" else None
        options = ExportOptions(target, precision, batch, calib=calib, allow_few=calib is not None)
        with single_threaded():
            return export_checkpoint(self.checkpoint(), path, options).path

    def model(self, target: str, precision: str = "fp32", batch: int = 1) -> Path:
        """Return what opens for a target: the checkpoint for "torch", else a bundle."""
        return self.checkpoint(batch) if target == "torch" else self.bundle(target, precision, batch)

    def reference(self) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
        """Return the network itself: images to head tensors."""
        torch = pytest.importorskip("torch", reason="the reference is torch's")
        from mdpose_edge.checkpoint import load_network
        from mdpose_edge.train.predict import head_tensors

        network, spec = load_network(self.checkpoint())

        def run_network(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            with single_threaded():
                return head_tensors(network, spec, torch.from_numpy(images))

        return run_network

    def reference_poses(self, frames: list[NDArray[np.uint8]]) -> list[Poses]:
        """Return the poses that the network finds, above a score of THRESHOLDS."""
        pytest.importorskip("torch", reason="the reference is torch's")
        from mdpose_edge.estimator import PoseEstimator

        threshold = THRESHOLDS.get(self._family, 0.5)
        with PoseEstimator(self.checkpoint(), runtime="torch", threads=1, threshold=threshold) as estimator:
            return estimator.batch(frames)
