"""MDPose by its authors' code (shawn615/mdpose): a ResNet, a pyramid of five levels, a head shared by all."""

from __future__ import annotations

from collections.abc import Mapping

from mdpose_edge.errors import CheckpointError
from mdpose_edge.importers.mapping import Rule, rows, turned
from mdpose_edge.importers.plan import Plan, channels_of, input_spec
from mdpose_edge.importers.pth import Stored
from mdpose_edge.spec import COCO_KEYPOINTS

BACKBONES = {(False, 6): "resnet34", (True, 6): "resnet50", (True, 23): "resnet101"}
"""By whether the blocks are bottlenecks, and by how many of them there are at stride 16."""
INPUT = 896
"""px: the paper's, with ResNets."""
_NET = "backbone.net"
_COORDINATES = 2 * len(COCO_KEYPOINTS.names)
NOTES = (
    f"the input size that it was trained at is not in the file; unless another was given it is {INPUT} px, the paper's",
    "the box centre, a keypoint more in training here, was none in the authors' code; its outputs are zero, and no "
    "export has them",
)


class _Source:
    """See `plan.Source`."""

    title = "MDPose (shawn615/mdpose)"
    signatures = (f"{_NET}.stage_c3.0.conv1.weight",)
    takes_scorer = False

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        blocks = sum(name.startswith(f"{_NET}.stage_c4.") and name.endswith(".conv1.weight") for name in found)
        backbone = BACKBONES.get((f"{_NET}.stage_c3.0.conv3.weight" in found, blocks))
        if backbone is None:
            expected, got = "the blocks of ResNet-34, ResNet-50 or ResNet-101", f"{blocks} at stride 16"
            raise CheckpointError(where, expected=expected, got=got, do="give a file of one of these")
        convs = sum(name.startswith("detector.") and name.endswith(".weight") for name in found)
        network = {
            "backbone": backbone,
            "levels": ("p3", "p4", "p5", "p6", "p7"),
            "channels": channels_of(found, "detector.0.weight"),
            "head_convs": max(convs, 1),
            "p6_from": "c5",
        }
        rules = [*_trunk_rules(), *_head_rules(2 * (convs - 1))]
        return Plan("mdpose", network, input_spec(height, width, INPUT), COCO_KEYPOINTS, rules, notes=NOTES)


def _trunk_rules() -> list[Rule]:
    stages = {"layer1": "base.4", "layer2": "stage_c3", "layer3": "stage_c4", "layer4": "stage_c5"}
    pyramid = {"extra.0": "stage_c6", "extra.1": "stage_c7.1"}
    for index, level in enumerate(("p3", "p4", "p5")):
        pyramid |= {f"lateral.{index}": f"stage_{level}_1", f"output.{index}": f"stage_{level}_2"}
    return [
        Rule("backbone.conv1.", f"{_NET}.base.0.", turned),
        Rule("backbone.bn1.", f"{_NET}.base.1."),
        *(Rule(f"backbone.{ours}.", f"{_NET}.{theirs}.") for ours, theirs in stages.items()),
        *(Rule(f"pyramid.{ours}.", f"{_NET}.{theirs}.") for ours, theirs in pyramid.items()),
    ]


def _head_rules(last: int) -> list[Rule]:
    """Return the head's; its last convolution gives o, mu and gamma one after another."""
    end = 1 + _COORDINATES
    return [
        Rule("head.tower.", "detector."),
        Rule("head.o.", f"detector.{last}.", rows(0, 1)),
        Rule("head.mu.", f"detector.{last}.", rows(1, end, more=2)),
        Rule("head.gamma.", f"detector.{last}.", rows(end, end + _COORDINATES, more=2)),
    ]


SOURCE = _Source()
