"""Mixture dense regression by its authors' code: the same outputs, and nothing of the published size is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from torch import nn  # noqa: E402

from mdpose_edge.checkpoint import load_network  # noqa: E402
from mdpose_edge.errors import CheckpointError  # noqa: E402
from mdpose_edge.families.hourglass import HOURGLASSES, HourglassShape  # noqa: E402
from mdpose_edge.importers.centernet_mdn import FROM_CORNER, KINDS  # noqa: E402
from mdpose_edge.importers.run import import_weights  # noqa: E402
from tests.unit.importers.published import GOLDENS, check_published, save_published, weights_of  # noqa: E402

GOLDEN = "mixture_dense_hourglass"


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = HourglassShape((6, 4), (4, 4, 6, 6, 6, 8), (2, 2, 2, 2, 2, 4), channels=5)
    monkeypatch.setitem(HOURGLASSES, "hourglass104", shape)


@pytest.mark.usefixtures("narrow")
def test_the_outputs_are_the_authors_but_for_half_a_cell(tmp_path: Path) -> None:
    golden, theirs = np.load(GOLDENS / f"{GOLDEN}.npz"), weights_of(GOLDEN)
    path = save_published(
        tmp_path / "model_last.pth", {f"module.{name}": t for name, t in theirs.items()}, arch="hourglass"
    )
    imported = import_weights(path, "centernet-mdn", tmp_path / "model.safetensors", height=128, width=128)
    network, spec = load_network(imported.path)
    assert imported.tensors == len(theirs)
    assert (spec.constants["components"], spec.constants["sigma_floor"]) == (2, 9.0)
    network.normalize = nn.Identity()
    with torch.no_grad():
        stacks = network.double()(torch.from_numpy(golden["image"]).double())
    compared = 0
    for name in golden.files:
        stack, _, kind = name.partition("_")
        if kind not in KINDS:
            continue
        outputs, ours = stacks[int(stack[-1])], KINDS[kind]
        parts = [outputs[key] for key in (f"{ours}_1", f"{ours}_2") if key in outputs] or [outputs[ours]]
        got, want = torch.cat(parts, dim=1).numpy() + 0.5 * (ours in FROM_CORNER), golden[name]
        step = got.shape[2] // want.shape[2]
        np.testing.assert_allclose(got[:, :, ::step, ::step], want, rtol=1e-4, atol=1e-4, err_msg=name)
        compared += 1
    assert compared == 10


def test_nothing_of_the_published_size_is_missing_or_left_over() -> None:
    spec = check_published(GOLDEN, "centernet-mdn").spec
    assert (spec.constants["components"], spec.network["head_channels"], spec.constants["heatmaps"]) == (3, 256, True)


def test_a_network_of_boxes_is_refused(tmp_path: Path) -> None:
    theirs = {name: tensor for name, tensor in weights_of(GOLDEN).items() if not name.startswith("hps.")}
    path = save_published(tmp_path / "a.pth", theirs)
    with pytest.raises(CheckpointError, match="expected a network of poses, got one of boxes, which has no hps"):
        import_weights(path, "centernet-mdn", tmp_path / "model.safetensors")
