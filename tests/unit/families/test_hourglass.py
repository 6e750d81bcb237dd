"""The stacked hourglass against the authors' code, by way of the family that uses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mdpose_edge.errors import ConfigError  # noqa: E402
from mdpose_edge.families.backbone import freeze_backbone  # noqa: E402
from mdpose_edge.families.hourglass import HOURGLASSES, Hourglass, HourglassShape  # noqa: E402
from mdpose_edge.families.mixture_dense.network import MixtureDenseNetwork, NetworkConfig, make_spec  # noqa: E402
from mdpose_edge.families.mixture_dense.training import FAMILY  # noqa: E402
from mdpose_edge.spec import InputSpec, ModelSpec  # noqa: E402

GOLDEN = Path(__file__).parents[2] / "goldens" / "mixture_dense_hourglass"
KINDS = {"hm": "centre", "wh": "size", "reg": "offset", "mdn_logits": "alpha", "hps": "mu", "mdn_sigma": "sigma"}
KINDS |= {"hm_hp": "heat", "hp_offset": "heat_offset"}
"""The authors' names for ours."""


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    shape = HourglassShape((6, 4), (4, 4, 6, 6, 6, 8), (2, 2, 2, 2, 2, 4), channels=5)
    monkeypatch.setitem(HOURGLASSES, "tiny", shape)
    return make_spec(NetworkConfig("tiny", head_channels=4, components=2), InputSpec(128, 128))


def in_our_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the weights as ours; a component of theirs is a part of the channels of one tensor."""
    ours = {}
    for name, tensor in theirs.items():
        kind, stack, rest = (*name.split(".", 2), "")[:3]
        if kind not in KINDS:
            ours[f"backbone.{name}"] = tensor
        elif rest.startswith("0.conv."):
            ours[f"branches.{stack}.{KINDS[kind]}.tower.0.{rest[7:]}"] = tensor
        else:
            part, last = rest.removeprefix("1."), f"branches.{stack}.{KINDS[kind]}.last"
            numbered = KINDS[kind] in ("mu", "sigma")
            for m, piece in enumerate(tensor.chunk(2) if numbered else [tensor], start=1):
                ours[f"{last}.{KINDS[kind]}{f'_{m}' * numbered}.{part}"] = piece
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in ours.items()}


def test_outputs_of_every_stack_are_the_authors(spec: ModelSpec) -> None:
    network = MixtureDenseNetwork(spec).double().eval()
    network.load_state_dict(in_our_names(load_file(f"{GOLDEN}.safetensors")), strict=True)
    golden = np.load(f"{GOLDEN}.npz")
    with torch.no_grad():
        maps = network.backbone(torch.from_numpy(golden["image"]).double())
        found = [branches(one) for branches, one in zip(network.branches, maps, strict=True)]
    compared = 0
    for name in golden.files:
        stack, _, kind = name.partition("_")
        if kind not in KINDS:
            continue
        outputs, ours = found[int(stack[-1])], KINDS[kind]
        parts = [outputs[key] for key in (f"{ours}_1", f"{ours}_2") if key in outputs] or [outputs[ours]]
        got, want = torch.cat(parts, dim=1), golden[name]
        step = got.shape[2] // want.shape[2]
        np.testing.assert_allclose(got[:, :, ::step, ::step], want, rtol=1e-5, atol=1e-5, err_msg=name)
        compared += 1
    assert compared == 10


def test_both_stacks_learn_and_the_last_is_deployed(spec: ModelSpec) -> None:
    network = MixtureDenseNetwork(spec).eval()
    images = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8)
    with torch.no_grad():
        first, last = network(images)
        deployed = FAMILY.deployed(network, spec)
        for name, got in zip(spec.outputs, deployed(images), strict=True):
            torch.testing.assert_close(got, last[name], rtol=1e-4, atol=1e-4)
    assert not torch.equal(first["centre"], last["centre"])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in deployed.modules())


def test_all_of_it_can_be_frozen(spec: ModelSpec) -> None:
    network = MixtureDenseNetwork(spec)
    freeze_backbone(network, 4)
    assert not any(parameter.requires_grad for parameter in network.backbone.parameters())
    assert all(parameter.requires_grad for parameter in network.branches.parameters())


def test_the_papers_has_the_published_size() -> None:
    """Of the trunk alone; names and shapes are those of the published checkpoints, all 960."""
    with torch.device("meta"):
        network = Hourglass(HOURGLASSES["hourglass104"])
    assert sum(p.numel() for p in network.parameters()) == 187_700_352
    assert len(network.state_dict()) == 960


def test_what_it_cannot_be_is_refused(spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match=r"input.height: expected a multiple of 128, got 96; use 128"):
        make_spec(NetworkConfig("hourglass104"), InputSpec(96, 128))
    with pytest.raises(ConfigError, match="pretrained: expected false for tiny, got True"):
        MixtureDenseNetwork(spec, pretrained=True)
