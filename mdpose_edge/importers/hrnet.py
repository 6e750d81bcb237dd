"""What the codes of adaptive keypoints share: HRNet, whose parts timm names as they do, and the scoring net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mdpose_edge.datasets.keypoints import CROWDPOSE_KEYPOINTS
from mdpose_edge.errors import CheckpointError
from mdpose_edge.importers.mapping import Rule, turned
from mdpose_edge.importers.plan import channels_of, input_spec
from mdpose_edge.importers.pth import Stored
from mdpose_edge.spec import COCO_KEYPOINTS, InputSpec, KeypointSpec

BACKBONES = {32: "hrnet_w32", 48: "hrnet_w48"}
"""By the width of the finest branch."""
INPUTS = {"hrnet_w48": 640}
"""px: of the published configurations; 512 of all others."""
KEYPOINTS = {len(keypoints.names): keypoints for keypoints in (COCO_KEYPOINTS, CROWDPOSE_KEYPOINTS)}
REACH_PX = 75.0
"""How far a peak may be from the keypoint that it takes the place of, whatever the input (the authors' codes)."""
LAYERS = tuple(f"l{number}.{part}" for number in (1, 2, 3) for part in ("weight", "bias"))
"""Of the scoring net."""
NOTES = (
    "the average of a picture and its mirror image, and of several sizes, is not made",
    "peaks of heat maps are found in cells and placed between them by a parabola; the authors' code upsamples the maps",
    "standard deviations come of a table of sizes that was not fitted to this model",
    "a picture is letterboxed into one input size, where the authors' code keeps its shape",
)
NO_SCORER = "there is no scoring net in the file (--scorer FILE gives one): scores are those without it"


@dataclass(frozen=True)
class Links:
    """What a scoring net reads of a pose: see `families.adaptive.scorer.ScorerLayout`."""

    links: tuple[tuple[int, int], ...]
    torso: tuple[int, ...]


def backbone_of(found: Mapping[str, Stored], prefix: str, where: str) -> str:
    """Return the HRNet of a file.

    Raises:
        CheckpointError: it is neither W32 nor W48.
    """
    width = channels_of(found, f"{prefix}stage4.0.branches.0.0.conv1.weight")
    if width not in BACKBONES:
        expected, got = "HRNet-W32 or HRNet-W48", f"a finest branch of {width} channels"
        raise CheckpointError(where, expected=expected, got=got, do="give a file of one of these")
    return BACKBONES[width]


def keypoints_of(count: int, where: str) -> KeypointSpec:
    """Return the keypoints that there are so many of.

    Raises:
        CheckpointError: neither COCO's nor CrowdPose's.
    """
    if count not in KEYPOINTS:
        expected, got = "17 keypoints (COCO) or 14 (CrowdPose)", str(count)
        raise CheckpointError(where, expected=expected, got=got, do="give a file of one of these")
    return KEYPOINTS[count]


def trunk_rules(prefix: str) -> list[Rule]:
    """Return the rules of the backbone, all of whose names but for their beginning are alike."""
    return [Rule("backbone.", prefix), Rule("backbone.conv1.", f"{prefix}conv1.", turned)]


def input_of(backbone: str, height: int | None, width: int | None) -> InputSpec:
    """Return the input: the authors resize to a short side, and fill up."""
    return input_spec(height, width, INPUTS.get(backbone, 512), resize="letterbox")


def constants_of(size: InputSpec, layout: Links | None) -> dict[str, Any]:
    """Return what is not as in models that are trained here: whole cells, and how peaks take keypoints' places."""
    scorer = None if layout is None else {"links": [list(link) for link in layout.links], "torso": list(layout.torso)}
    reach = REACH_PX / min(size.height, size.width)
    return {"cell_origin": 0.0, "heat_threshold": 0.01, "reach": reach, "reach_of_pose": 10.0, "scorer": scorer}


def scorer_names(
    found: Mapping[str, Stored], prefixes: Sequence[str], layout: Links, count: int, where: str
) -> dict[str, str]:
    """Return the tensors of the scoring net, ours to theirs; none where the file has none.

    Raises:
        CheckpointError: its shapes are not those of a net that reads such a layout.
    """
    prefix = next((prefix for prefix in prefixes if f"{prefix}l1.weight" in found), None)
    if prefix is None:
        return {}
    hidden, width = channels_of(found, f"{prefix}l1.weight"), 3 * len(layout.links) + count
    shapes = dict(
        zip(LAYERS, ((hidden, width), (hidden,), (hidden, hidden), (hidden,), (1, hidden), (1,)), strict=True)
    )
    for name, shape in shapes.items():
        stored = found.get(prefix + name)
        if stored is None or stored.shape != shape:
            got = "none" if stored is None else str(stored.shape)
            do = "give a scoring net for these keypoints"
            raise CheckpointError(where, expected=f"{prefix}{name} of shape {shape}", got=got, do=do)
    return {name: prefix + name for name in LAYERS}
