"""DEKR by mmpose, whose checkpoints of version 1 and before differ in names, in the centre's place and in a sign."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mdpose_edge.importers.hrnet import (
    NO_SCORER,
    NOTES,
    Links,
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
from mdpose_edge.spec import COCO_KEYPOINTS

CROWDPOSE_LINKS = (
    (10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13), (1, 13),
    (0, 13),
)  # fmt: skip
LAYOUTS = {17: Links(COCO_KEYPOINTS.skeleton, (5, 6)), 14: Links(CROWDPOSE_LINKS, (0, 1))}
"""By the number of keypoints; CrowdPose's net was trained with two links of the legs for a torso."""
HEADS = ("head.displacement_conv_layers", "head.offset_conv_layers", "keypoint_head.offset_conv_layers")
"""The offsets' head: of version 1, and of those before."""
MMPOSE_NOTE = "keypoints are moved to peaks of their heat maps, as in the authors' code, where mmpose leaves them"


class _Source:
    """See `plan.Source`."""

    title = "DEKR by mmpose (open-mmlab/mmpose)"
    signatures = tuple(f"{head}.3.weight" for head in HEADS)
    takes_scorer = False

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        offsets = next(head for head in HEADS if f"{head}.3.weight" in found)
        heat, is_old = f"{offsets.partition('.')[0]}.heatmap_conv_layers", offsets != HEADS[0]
        count = channels_of(found, f"{heat}.2.weight") - 1
        keypoints, backbone = keypoints_of(count, where), backbone_of(found, "backbone.", where)
        size, layout = input_of(backbone, height, width), LAYOUTS[count]
        scorer = scorer_names(found, ("head.rescore_net.", "rescore_net."), layout, count, where)
        network = {
            "backbone": backbone,
            "heat_channels": channels_of(found, f"{heat}.0.conv.weight"),
            "channels_per_keypoint": channels_of(found, f"{offsets}.0.conv.weight") // count,
        }
        return Plan(
            "adaptive", network, size, keypoints,
            rules=[*trunk_rules("backbone."), *_heat_rules(heat, count, is_old), *_offset_rules(offsets, is_old)],
            unused=[f"{offsets}.{block}.regular_matrix" for block in (1, 2)],
            constants=constants_of(size, layout if scorer else None),
            side={"scorer": scorer} if scorer else {},
            notes=(*NOTES, MMPOSE_NOTE) if scorer else (*NOTES, MMPOSE_NOTE, NO_SCORER),
        )  # fmt: skip


def _heat_rules(theirs: str, count: int, is_old: bool) -> list[Rule]:
    stem = {"0.0": "0.conv", "0.1": "0.bn"}
    for number in (1, 2):
        stem |= {f"1.conv{number}": f"1.conv{number}", f"1.norm{number}": f"1.bn{number}"}
    centre, first = (0, 1) if is_old else (count, 0)
    return [
        *(Rule(f"heads.heat_stem.{ours}.", f"{theirs}.{name}.") for ours, name in stem.items()),
        Rule("heads.heat.", f"{theirs}.2.", rows(first, first + count)),
        Rule("heads.centre.", f"{theirs}.2.", rows(centre, centre + 1)),
    ]


def _offset_rules(theirs: str, is_old: bool) -> list[Rule]:
    rules = [Rule("heads.offset_stem.0.", f"{theirs}.0.conv."), Rule("heads.offset_stem.1.", f"{theirs}.0.bn.")]
    for block in (0, 1):
        ours, name = f"heads.offset_blocks.{block}", f"{theirs}.{block + 1}"
        rules += [
            Rule(f"{ours}.adapt.0.transform.", f"{name}.transform_matrix_conv."),
            Rule(f"{ours}.adapt.0.conv.", f"{name}.adapt_conv."),
            Rule(f"{ours}.norm.0.", f"{name}.norm."),
        ]
    last = Rule("heads.offset.", f"{theirs}.3.", Tensor.neg) if is_old else Rule("heads.offset.", f"{theirs}.3.")
    return [*rules, last]


SOURCE = _Source()
