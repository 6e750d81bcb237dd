"""DEKR by its authors' code (HRNet/DEKR): heat maps, and adaptive blocks of their own for each keypoint's offsets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
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

COCO_LINKS = (
    (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (5, 11), (6, 8), (6, 12), (7, 9), (8, 10),
    (11, 12), (11, 13), (12, 14), (13, 15), (14, 16),
)  # fmt: skip
CROWDPOSE_LINKS = (
    (12, 13), (13, 0), (13, 1), (0, 2), (1, 3), (2, 4), (3, 5), (0, 6), (1, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (6, 7), (0, 1),
)  # fmt: skip
LAYOUTS = {17: Links(COCO_LINKS, (9, 11)), 14: Links(CROWDPOSE_LINKS, (9, 11))}
"""By the number of keypoints. Links 9 and 11 are the sides of COCO's torso, and so were they for CrowdPose's net."""
BLOCKS = 2


class _Source:
    """See `plan.Source`."""

    title = "DEKR (HRNet/DEKR)"
    signatures = ("offset_final_layer.0.weight",)
    takes_scorer = True

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        count = channels_of(found, "head_heatmap.1.weight") - 1
        keypoints, backbone = keypoints_of(count, where), backbone_of(found, "", where)
        size, layout = input_of(backbone, height, width), LAYOUTS[count]
        scorer = scorer_names(found, ("scorer.",), layout, count, where)
        network = {
            "backbone": backbone,
            "heat_channels": channels_of(found, "transition_heatmap.0.weight"),
            "channels_per_keypoint": channels_of(found, "offset_feature_layers.0.0.adapt_conv.weight"),
        }
        return Plan(
            "adaptive", network, size, keypoints,
            rules=[*trunk_rules(""), *_heat_rules(count), *_offset_rules(count)],
            unused=[f"offset_feature_layers.{k}.{b}.regular_matrix" for k in range(count) for b in range(BLOCKS)],
            constants=constants_of(size, layout if scorer else None),
            side={"scorer": scorer} if scorer else {},
            notes=NOTES if scorer else (*NOTES, NO_SCORER),
        )  # fmt: skip


def _heat_rules(count: int) -> list[Rule]:
    stem = {"0.0": "transition_heatmap.0", "0.1": "transition_heatmap.1"}
    for number in (1, 2):
        stem |= {f"1.conv{number}": f"head_heatmap.0.0.conv{number}", f"1.norm{number}": f"head_heatmap.0.0.bn{number}"}
    return [
        *(Rule(f"heads.heat_stem.{ours}.", f"{theirs}.") for ours, theirs in stem.items()),
        Rule("heads.heat.", "head_heatmap.1.", rows(0, count)),
        Rule("heads.centre.", "head_heatmap.1.", rows(count, count + 1)),
    ]


def _offset_rules(count: int) -> list[Rule]:
    """Return the rules of the offsets: what they have a keypoint, we have in groups of channels."""
    rules = [Rule(f"heads.offset_stem.{part}.", f"transition_offset.{part}.") for part in (0, 1)]
    for block in range(BLOCKS):
        ours = f"heads.offset_blocks.{block}"
        theirs = [f"offset_feature_layers.{keypoint}.{block}." for keypoint in range(count)]
        moves = tuple(f"{one}{kind}_conv." for one in theirs for kind in ("transform_matrix", "translation"))
        rules += [
            Rule(f"{ours}.adapt.0.transform.", moves, moves_of_pairs),
            Rule(f"{ours}.adapt.0.conv.", tuple(f"{one}adapt_conv." for one in theirs), together),
            Rule(f"{ours}.norm.0.", tuple(f"{one}bn." for one in theirs), together),
        ]
    last = tuple(f"offset_final_layer.{keypoint}." for keypoint in range(count))
    return [*rules, Rule("heads.offset.", last, lambda *tensors: -together(*tensors))]


def together(*tensors: Tensor) -> Tensor:
    """Join the channels of all keypoints."""
    return torch.cat(tensors)


def moves_of_pairs(*tensors: Tensor) -> Tensor:
    """Make (T - 1 | t) of a matrix T and a translation t for each keypoint, rows y and x: weights, or biases."""
    return torch.cat([moves(matrix, shift) for matrix, shift in zip(tensors[::2], tensors[1::2], strict=True)])


def moves(matrix: Tensor, shift: Tensor | None = None) -> Tensor:
    """Make (T - 1 | t) of T_yy, T_yx, T_xy, T_xx and t_y, t_x, which may be none: of weights, or of biases."""
    if matrix.ndim == 1:
        matrix = matrix - matrix.new_tensor([1.0, 0.0, 0.0, 1.0])
    if shift is None:
        shift = torch.zeros_like(matrix[:2])
    return torch.cat([matrix[:2], shift[:1], matrix[2:], shift[1:]])


SOURCE = _Source()
