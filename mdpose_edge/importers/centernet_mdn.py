"""Mixture dense regression by its authors' code (alivaramesh/MixtureDenseRegression), on the stacked hourglass.

That code measures from a cell's upper left corner, which is half a cell in the biases of what is measured; so nothing
of it is left to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from mdpose_edge.errors import CheckpointError
from mdpose_edge.families.hourglass import HOURGLASSES
from mdpose_edge.importers.mapping import Rule, rows
from mdpose_edge.importers.plan import Plan, channels_of, input_spec
from mdpose_edge.importers.pth import Stored
from mdpose_edge.spec import COCO_KEYPOINTS, NO_KEYPOINTS

BACKBONE = "hourglass104"
INPUT = 512
MEAN, STD = (0.40789654, 0.44719302, 0.47026115), (0.28863828, 0.27408164, 0.27809835)
"""Of the pixels, of 1, in the order BGR (CenterNet)."""
POSE_SIGMA, BOX_SIGMA = 10.0, 1.0
"""The least spread of poses, the code's default, and of boxes, as published: a spread is ELU(raw) + this."""
POSES = {
    "hm": "centre", "mdn_logits": "alpha", "reg": "offset", "wh": "size", "hps": "mu", "mdn_sigma": "sigma",
    "hm_hp": "heat", "hp_offset": "heat_offset",
}  # fmt: skip
"""Their names of the branches of a network of poses, and ours."""
BOXES = {"hm": "centre", "mdn_logits": "alpha", "reg": "offset", "wh": "mu", "mdn_sigma": "sigma"}
"""Likewise, of boxes."""
FROM_CORNER = ("reg", "hps", "hp_offset")
"""Positions within a cell."""
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""In the order of their ids."""
NOTES = (
    "the average of a picture and its mirror image, and of several sizes, is not made",
    "bars around a picture have the mean colour, where the authors' code has black ones",
)
_HOURGLASS, _DLA = "mdn_logits.0.1.weight", "mdn_logits.2.weight"


class _Source:
    """See `plan.Source`."""

    title = "mixture dense regression (alivaramesh/MixtureDenseRegression)"
    signatures = (_HOURGLASS, _DLA)
    takes_scorer = False

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        if _HOURGLASS not in found:
            got = "DLA-34 with deformable convolutions, which this package has for no target"
            do = "give one of the hourglass, or train DLA-34 here"
            raise CheckpointError(where, expected="a stacked hourglass", got=got, do=do)
        of_poses, components = "hps.0.1.weight" in found, channels_of(found, _HOURGLASS)
        classes = channels_of(found, "hm.0.1.weight")
        if not of_poses and classes != len(COCO_CLASSES):
            got, do = str(classes), "give a network of poses, or one of boxes that was trained on COCO"
            raise CheckpointError(where, expected=f"COCO's {len(COCO_CLASSES)} classes", got=got, do=do)
        least = POSE_SIGMA if of_poses else BOX_SIGMA
        network = {
            "backbone": BACKBONE,
            "head_channels": channels_of(found, "hm.0.0.conv.weight"),
            "components": components,
            "sigma_floor": least - 1.0,
            "heatmaps": "hm_hp.0.1.weight" in found,
        }
        stacks = range(HOURGLASSES[BACKBONE].stacks)
        branches = [rule for stack in stacks for rule in _branch_rules(stack, components, of_poses)]
        return Plan(
            "mixture_dense",
            network,
            input_spec(height, width, INPUT, mean=_of_255(MEAN), std=_of_255(STD), resize="letterbox"),
            COCO_KEYPOINTS if of_poses else NO_KEYPOINTS,
            [Rule("backbone.", ""), *branches],
            classes=() if of_poses else COCO_CLASSES,
            notes=(f"the least spread is not in the file: {least:g} cells (--mdn_min_sigma), as published", *NOTES),
        )


def _branch_rules(stack: int, components: int, of_poses: bool) -> list[Rule]:
    """Return the rules of one stack's branches; components of theirs are channels of one tensor."""
    rules = []
    for theirs, ours in (POSES if of_poses else BOXES).items():
        branch, last = f"branches.{stack}.{ours}", f"{theirs}.{stack}.1."
        rules.append(Rule(f"{branch}.tower.0.", f"{theirs}.{stack}.0.conv."))
        numbered = ours in ("mu", "sigma")
        channels = 2 * len(COCO_KEYPOINTS.names) if theirs == "hps" else 2
        for number in range(1, components + 1) if numbered else [0]:
            name = f"{branch}.last.{ours}{f'_{number}' * numbered}."
            part = rows((number - 1) * channels, number * channels) if numbered else Tensor.clone
            rules += [Rule(name, last, part)]
            if theirs in FROM_CORNER:
                rules += [Rule(f"{name}bias", f"{last}bias", _from_center(part))]
    return rules


def _from_center(part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what measures from the centre of a cell, too."""
    return lambda bias: part(bias) - 0.5


def _of_255(values: tuple[float, float, float]) -> tuple[float, float, float]:
    blue, green, red = values
    return 255 * blue, 255 * green, 255 * red


SOURCE = _Source()
