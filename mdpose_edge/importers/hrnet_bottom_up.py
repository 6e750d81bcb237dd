"""Adaptive keypoints by the journal article's code (HRNet-Bottom-up-Pose-Estimation): heat maps guide the offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from mdpose_edge.importers.dekr import LAYOUTS, moves
from mdpose_edge.importers.hrnet import (
    NO_SCORER,
    NOTES,
    backbone_of,
    constants_of,
    input_of,
    keypoints_of,
    scorer_names,
    trunk_rules,
)
from mdpose_edge.importers.mapping import Rule, rows
from mdpose_edge.importers.plan import Plan, channels_of
from mdpose_edge.importers.pth import Stored

HEAT_BLOCKS = [f"multi_level_layers_4x_heatmap.{number}.0" for number in range(3)]
"""Of dilations 1, 2 and 3; the file holds what they share three times."""
POSE_BLOCK = "multi_level_layers_4x_regression.0.0"


class _Source:
    """See `plan.Source`."""

    title = "heat-map-guided adaptive keypoints (HRNet/HRNet-Bottom-up-Pose-Estimation)"
    signatures = (f"{POSE_BLOCK}.stn_conv1.weight",)
    takes_scorer = True

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        count = channels_of(found, "final_layers.0.weight")
        keypoints, backbone = keypoints_of(count, where), backbone_of(found, "", where)
        size, layout = input_of(backbone, height, width), LAYOUTS[count]
        scorer = scorer_names(found, ("scorer.",), layout, count, where)
        network = {
            "backbone": backbone,
            "structure": "guided",
            "heat_channels": channels_of(found, "transition_cls.0.weight"),
            "pose_channels": channels_of(found, "transition_reg.0.weight"),
        }
        return Plan(
            "adaptive", network, size, keypoints,
            rules=[*trunk_rules(""), *_head_rules(count)],
            unused=[f"{block}.regular_matrix" for block in (*HEAT_BLOCKS, POSE_BLOCK)],
            constants=constants_of(size, layout if scorer else None),
            side={"scorer": scorer} if scorer else {},
            notes=NOTES if scorer else (*NOTES, NO_SCORER),
        )  # fmt: skip


def _head_rules(count: int) -> list[Rule]:
    rules = [
        Rule(f"heads.{ours}_stem.{part}.", f"transition_{theirs}.{part}.")
        for ours, theirs in (("heat", "cls"), ("pose", "reg"))
        for part in (0, 1)
    ]
    blocks = {f"heads.heat_blocks.{number}": theirs for number, theirs in enumerate(HEAT_BLOCKS)}
    for ours, theirs in (blocks | {"heads.pose_block": POSE_BLOCK}).items():
        for index in (0, 1):
            rules += [
                Rule(f"{ours}.adapt.{index}.transform.", f"{theirs}.transform_matrix_conv{index + 1}.", moves),
                Rule(f"{ours}.adapt.{index}.conv.", f"{theirs}.stn_conv{index + 1}."),
                Rule(f"{ours}.norm.{index}.", f"{theirs}.bn{index + 1}."),
            ]
    return [
        *rules,
        Rule("heads.heat.", "final_layers.0."),
        Rule("heads.offset.", "final_layers.1.", _offsets(count)),
        Rule("heads.centre.", "final_layers.1.", rows(2 * count, 2 * count + 1)),
    ]


def _offsets(count: int) -> Callable[[Tensor], Tensor]:
    """Return what takes the offsets, and measures from the cell to the keypoint."""
    return lambda tensor: -tensor[: 2 * count]


SOURCE = _Source()
