"""Mixture dense regression by its authors' code (alivaramesh/MixtureDenseRegression): poses, on the stacked hourglass.

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
from mdpose_edge.spec import COCO_KEYPOINTS

BACKBONE = "hourglass104"
INPUT = 512
MEAN, STD = (0.40789654, 0.44719302, 0.47026115), (0.28863828, 0.27408164, 0.27809835)
"""Of the pixels, of 1, in the order BGR (CenterNet)."""
LEAST_SIGMA = 10.0
"""The code's default for poses: a spread is ELU(raw) + this."""
KINDS = {
    "hm": "centre", "mdn_logits": "alpha", "reg": "offset", "wh": "size", "hps": "mu", "mdn_sigma": "sigma",
    "hm_hp": "heat", "hp_offset": "heat_offset",
}  # fmt: skip
"""Their names of the branches, and ours."""
FROM_CORNER = ("offset", "mu", "heat_offset")
"""Positions within a cell."""
NOTES = (
    f"the least spread is not in the file: {LEAST_SIGMA:g} cells, the code's default for poses (--mdn_min_sigma)",
    "the average of a picture and its mirror image, and of several sizes, is not made",
    "bars around a picture have the mean colour, where the authors' code has black ones",
)


class _Source:
    """See `plan.Source`."""

    title = "mixture dense regression (alivaramesh/MixtureDenseRegression)"
    signatures = ("mdn_logits.0.1.weight",)
    takes_scorer = False

    def plan(self, found: Mapping[str, Stored], height: int | None, width: int | None, where: str) -> Plan:
        """See `plan.Source`."""
        if "hps.0.1.weight" not in found:
            expected, got = "a network of poses", "one of boxes, which has no hps"
            raise CheckpointError(where, expected=expected, got=got, do="give one that was trained for multi_pose")
        components = channels_of(found, self.signatures[0])
        heatmaps = "hm_hp.0.1.weight" in found
        network = {
            "backbone": BACKBONE,
            "head_channels": channels_of(found, "hm.0.0.conv.weight"),
            "components": components,
            "sigma_floor": LEAST_SIGMA - 1.0,
            "heatmaps": heatmaps,
        }
        size = input_spec(height, width, INPUT, mean=_of_255(MEAN), std=_of_255(STD), resize="letterbox")
        stacks = range(HOURGLASSES[BACKBONE].stacks)
        rules = [Rule("backbone.", ""), *(rule for stack in stacks for rule in _branch_rules(stack, components))]
        return Plan("mixture_dense", network, size, COCO_KEYPOINTS, rules, notes=NOTES)


def _branch_rules(stack: int, components: int) -> list[Rule]:
    """Return the rules of one stack's branches; components of theirs are channels of one tensor."""
    rules = []
    for theirs, ours in KINDS.items():
        branch, last = f"branches.{stack}.{ours}", f"{theirs}.{stack}.1."
        rules.append(Rule(f"{branch}.tower.0.", f"{theirs}.{stack}.0.conv."))
        numbered = ours in ("mu", "sigma")
        channels = {"mu": 2 * len(COCO_KEYPOINTS.names), "sigma": 2}.get(ours, 0)
        for number in range(1, components + 1) if numbered else [0]:
            name = f"{branch}.last.{ours}{f'_{number}' * numbered}."
            part = rows((number - 1) * channels, number * channels) if numbered else Tensor.clone
            rules += [Rule(name, last, part)]
            if ours in FROM_CORNER:
                rules += [Rule(f"{name}bias", f"{last}bias", _from_center(part))]
    return rules


def _from_center(part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what measures from the centre of a cell, too."""
    return lambda bias: part(bias) - 0.5


def _of_255(values: tuple[float, float, float]) -> tuple[float, float, float]:
    blue, green, red = values
    return 255 * blue, 255 * green, 255 * red


SOURCE = _Source()
