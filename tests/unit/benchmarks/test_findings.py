"""The benchmarks of the paper's findings run, on a budget of seconds, and add up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import occlusion, rkg
from benchmarks.rkg import EPSILONS, SETTINGS, SHARES, draw_results, findings, outcome, people, product_nll
from mdpose_edge.checkpoint import read_checkpoint
from mdpose_edge.datasets.images import read_image
from mdpose_edge.families.mdpose.loss import Mixture, group_keypoints, group_nll
from mdpose_edge.train.curves import LINES
from tests.artifacts import Artifacts

BUDGET = [
    "--iterations", "2", "--size", "64", "--batch", "2", "--backbone", "test_resnet", "--channels", "8",
    "--head-convs", "2", "--train-images", "4", "--val-images", "2",
]  # fmt: skip


def problem(gamma: float) -> tuple[Mixture, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 36, 21)
    mixture = Mixture(
        torch.randn(2, 21, generator=generator).log_softmax(1),
        torch.rand(shape, generator=generator) * 5,
        torch.full(shape, gamma),
    )
    points = torch.rand(2, 3, 18, 2, generator=generator) * 5
    labelled = torch.rand(2, 3, 18, generator=generator) < 0.8
    mask = torch.tensor([[True, True, False], [True, False, False]])
    return mixture, {"keypoints_xy": points, "labelled": labelled, "person_mask": mask}


@pytest.mark.parametrize("epsilon", EPSILONS.values(), ids=EPSILONS)
@pytest.mark.parametrize("group_size", [1, 3])
def test_the_naive_product_is_the_same_loss_where_nothing_underflows(group_size: int, epsilon: float) -> None:
    mixture, batch = problem(gamma=2.0)
    groups = group_keypoints(18, group_size, torch.Generator().manual_seed(1))
    naive, shares = product_nll(mixture, batch, groups, epsilon)
    _, exact = group_nll(mixture, *people(batch), groups)
    assert naive.item() == pytest.approx(exact.item(), rel=1e-3)
    assert shares == dict.fromkeys(SHARES, 0.0)


def test_large_groups_of_sharp_densities_underflow_and_only_there() -> None:
    mixture, batch = problem(gamma=0.1)
    shares = {
        size: product_nll(mixture, batch, group_keypoints(18, size, torch.Generator().manual_seed(1)), 0.0)[1]
        for size in (1, 3, 18)
    }
    assert shares[1]["components"] < shares[3]["components"] < shares[18]["components"]
    assert shares[18]["persons"] == shares[18]["swamped"] == 1.0
    log_space, _ = group_nll(mixture, *people(batch), (tuple(range(18)),))
    assert torch.isfinite(log_space).all()


def test_a_sweep_resumes_keeps_to_its_conditions_and_prints_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(tmp_path / "rkg"), *BUDGET]
    rkg.main([*options, "--only", "log-18-random"])
    assert "log-18-random 0:" in capsys.readouterr().out
    rkg.main([*options, "--only", "log-18-random", "--only", "product-3-fixed"])
    again = capsys.readouterr().out
    assert "log-18-random 0:" not in again and re.search(
        r"K_g = 18, log: did not learn, AP50 0\.\d+, loss [\d.]+ at first, [\d.]+ at last", again
    )
    results = json.loads((tmp_path / "rkg" / "results.json").read_text())["settings"]
    assert set(results) == {"log-18-random", "product-3-fixed"}
    for row in results.values():
        assert row["marks"][-1]["iteration"] == 1 and 0 <= row["marks"][0]["components"] <= 1
        assert row["figures"] is None or 0 <= row["figures"]["AP"] <= 1
    assert read_image(tmp_path / "rkg" / "rkg.png", orient=False).shape == (520, 1120, 3)
    with pytest.raises(SystemExit) as refused:
        rkg.main([*options, "--seed", "1"])
    assert refused.value.code == 2 and "other conditions" in capsys.readouterr().err


def row(size: int, ap: float | None, grouping: str = "random", loss: str = "log", **last: float) -> dict[str, object]:
    figures = None if ap is None else {"AP": ap, "AP50": 2 * ap}
    marks = [{"iteration": 5, "components": 0.5, "persons": 0.0, "swamped": 0.0} | last]
    return {
        "group_size": size, "grouping": grouping, "loss": loss, "figures": figures, "nan_at": 5, "marks": marks,
        "train_s": 1.0,
    }  # fmt: skip


def test_findings_say_where_the_ranking_differs_from_the_papers() -> None:
    rows = {"log-2-random": row(2, 0.3), "log-3-random": row(3, 0.2), "log-3-fixed": row(3, 0.1, "fixed")}
    rows["product-3-random"] = row(3, 0.15, loss="product")
    text = "\n".join(findings(rows))
    assert "log space: 2 > 3" in text and "3 > 2 > 18 (NaN); another order" in text
    assert "random groups 0.200 AP, fixed 0.100" in text and "log space 0.200 AP, product 0.150" in text
    rows["log-2-random"] = row(2, 0.15)
    assert "the same order" in "\n".join(findings(rows))
    assert [outcome(row(1, ap)) for ap in (0.3, 0.001)] == ["learnt", "did not learn"]
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS) == 19


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"persons": 0.1, "overflow": 0.0}, "NaN at 5, likelihoods of 0"),
        ({"overflow": 0.1}, "NaN at 5, likelihoods beyond float32"),
        ({}, "NaN at 5"),
    ],
    ids=["underflow", "overflow", "neither"],
)
def test_a_nan_is_told_with_its_reason(last: dict[str, float], words: str) -> None:
    rows = {"product-18-random": row(18, None, loss="product", **last)}
    assert f"K_g = 18, product: {words}" in findings(rows)


def test_sharp_densities_of_large_groups_leave_float32_at_its_upper_end() -> None:
    """The paper's NaN: 36 densities of 12.5 are 3e39, and float32 ends at 3.4e38."""
    points = torch.rand(1, 1, 18, 2, generator=torch.Generator().manual_seed(0)) * 5
    seen = torch.ones(1, 1, 18, dtype=torch.bool)
    batch = {"keypoints_xy": points, "labelled": seen, "person_mask": seen[..., 0]}
    mu = points.flatten(1)[..., None].requires_grad_()
    mixture = Mixture(torch.zeros(1, 1), mu, torch.full((1, 36, 1), 0.04))
    overflow, finite = {}, {}
    for size in (9, 18):
        groups = group_keypoints(18, size, torch.Generator().manual_seed(1))
        loss, shares = product_nll(mixture, batch, groups, EPSILONS["product"])
        overflow[size], finite[size] = shares["overflow"], bool(torch.autograd.grad(loss, mu)[0].isfinite().all())
    assert overflow == {9: 0.0, 18: 1.0} and finite == {9: True, 18: False}


def test_a_sweep_goes_on_from_a_checkpoint_of_its_own_size(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [str(tmp_path), "--start", str(artifacts.checkpoint()), *BUDGET, "--only", "log-3-random"]
    rkg.main(options)
    trained = read_checkpoint(tmp_path / "log-3-random.safetensors")
    assert trained.spec.heads == read_checkpoint(artifacts.checkpoint()).spec.heads
    with pytest.raises(SystemExit) as refused:
        rkg.main([*options, "--size", "96"])
    assert refused.value.code == 2 and "pass --size 64" in capsys.readouterr().err


def test_a_trained_models_likelihoods_are_counted(
    artifacts: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--size", "64", "--train-images", "3", "--val-images", "0", "--people", "2", "2"]
    rkg.main([str(tmp_path), "--trained", str(artifacts.checkpoint()), *options])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 6, 9, 18]
    persons = int(rows[-1][1])
    assert [int(row[1]) for row in rows] == [persons * n for n in (18, 9, 6, 3, 2, 1)] and 3 <= persons <= 6
    assert all(row[-1] == "0" for row in rows)  # log space
    assert not (tmp_path / "results.json").exists()


def test_the_picture_shows_what_is_there_and_leaves_gaps_for_the_rest() -> None:
    rows = {f"log-{size}-random": row(size, 0.1 * size) for size in (1, 2, 3)}
    rows |= {"product-18-random": row(18, None, loss="product"), "log-3-fixed": row(3, 0.1, "fixed")}
    picture = draw_results(rows)
    blue, vermilion = (np.abs(picture.astype(int) - color).max(axis=2) < 9 for color in LINES)
    top_left, top_right = (slice(0, 260), slice(0, 560)), (slice(0, 260), slice(560, 1120))
    assert blue[top_left].any() and not vermilion[top_left].any() and vermilion[top_right].any()
    assert (draw_results({}) < 200).any()  # titles, and that nothing was recorded


def test_occlusion_counts_everybody_once(artifacts: Artifacts, tmp_path: Path) -> None:
    report = tmp_path / "occlusion.json"
    options = ["--images", "8", "--size", "96", "--threads", "1", "--json", str(report)]
    occlusion.main([str(artifacts.checkpoint()), *options])
    rows = json.loads(report.read_text())["overlap"]
    assert list(rows) == ["0", "0.25", "0.5", "0.75", "all"]
    people = [row["people"] for row in rows.values()]
    assert sum(people[:-1]) == people[-1] > 10
    assert people[0] > 0 and people[2] + people[3] > 0  # from apart to OCHuman's regime
