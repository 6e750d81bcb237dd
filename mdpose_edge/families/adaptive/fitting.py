"""What is fitted to a trained network: the table of standard deviations, and the scoring net.

Both see what the decoder makes of training images, and the annotated people: how far off the keypoints of those are
whom it found, and what OKS each person that it grouped has, real or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mdpose_edge.families.adaptive.decode import EVALUATION, AdaptiveDecoder, Grouped
from mdpose_edge.families.adaptive.heads import PEAK, REGRESSED, constants_of
from mdpose_edge.families.adaptive.scorer import (
    HIDDEN,
    LAYERS,
    SCORER,
    ScorerLayout,
    features_of,
    layout_of,
    num_features,
)
from mdpose_edge.families.base import Finished, FitImage
from mdpose_edge.families.heat_sigma import Observations, fit, prior, sizes_of
from mdpose_edge.oks import oks_matrix
from mdpose_edge.spec import ModelSpec

FOUND = 0.5
"""OKS from which on a pose is of a person: its errors are the table's."""
EPOCHS, BATCH, RATE = 20, 1024, 1e-3
"""Of the scoring net's training, with Adam (the authors' code)."""
LEAST_STEPS = 500
"""Where there are few candidates, more epochs."""
HELD_OUT = 10
"""One candidate in ten tells how good the scoring net is."""
LEAST_CANDIDATES = 20
"""From fewer no scoring net is trained."""


@dataclass(frozen=True)
class Candidates:
    """N people whom the decoder grouped, and the annotated person whom each resembles most."""

    people: Grouped
    oks: NDArray[np.float64]
    """(N,)"""
    truth_xy: NDArray[np.float32]
    """(N, K, 2), of that person, px of the network input."""
    labelled: NDArray[np.bool_]
    """(N, K)"""


def finish(spec: ModelSpec, images: Iterable[FitImage], seed: int, *, scorer: bool) -> Finished:
    """Fit the table, and the scoring net where it is asked for: see `families.base.Finishing`."""
    bare = replace(spec, constants={**spec.constants, "scorer": None})
    decoder = AdaptiveDecoder(bare, replace(EVALUATION, score_threshold=0.0))
    found = [one for image in images if (one := candidates_of(decoder, image, spec.keypoints.sigmas)) is not None]
    constants = constants_of(bare)
    side: dict[str, dict[str, NDArray[np.float32]]] = {}
    if not found:
        return Finished(bare, side, "nothing was fitted: the network finds nobody")
    seen = _joined(found)
    near = seen.oks >= FOUND
    table = fit(prior(spec.keypoints.sigmas, kinds=2), _observations(seen, near))
    constants = replace(constants, sigma=table)
    note = f"fitted sigma to {int(near.sum())} people"
    if scorer and len(seen.oks) >= LEAST_CANDIDATES:
        layout = layout_of(spec.keypoints)
        net, error, constant = train_scorer(layout, seen, len(spec.keypoints.names), seed)
        constants, side = replace(constants, scorer=layout), {SCORER: net}
        note += f"; scoring net: OKS of {len(seen.oks)} candidates to {error:.3f} (their spread: {constant:.3f})"
    return Finished(replace(spec, constants=asdict(constants)), side, note)


def candidates_of(decoder: AdaptiveDecoder, image: FitImage, sigmas: tuple[float, ...]) -> Candidates | None:
    """Group the people of one image; None where there are none, or none annotated."""
    people = decoder.group(image.heads)
    if not len(people.centre) or not len(image.areas):
        return None
    oks = oks_matrix(people.keypoints_xy, image.keypoints_xy, image.labelled, image.areas, sigmas)
    best = oks.argmax(axis=1)
    return Candidates(people, oks.max(axis=1), image.keypoints_xy[best], image.labelled[best])


def train_scorer(
    layout: ScorerLayout, seen: Candidates, num_keypoints: int, seed: int
) -> tuple[dict[str, NDArray[np.float32]], float, float]:
    """Train the scoring net.

    Returns:
        Its tensors; and, for candidates that were held out, the root of the mean squared error, and their standard
        deviation, which is what a constant would err by.
    """
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(features_of(layout, seen.people.keypoints_xy, seen.people.heat))
    labels = torch.from_numpy(seen.oks.astype(np.float32))
    order = rng.permutation(len(labels))
    held_out, kept = order[::HELD_OUT], np.delete(order, np.s_[::HELD_OUT])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _net(num_features(layout, num_keypoints))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    steps = max(LEAST_STEPS, EPOCHS * -(-len(kept) // BATCH))
    for _ in range(steps):
        rows = rng.choice(kept, min(BATCH, len(kept)), replace=False)
        loss = functional.mse_loss(net(features[rows])[:, 0], labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        error = functional.mse_loss(net(features[held_out])[:, 0].clamp(0, 1), labels[held_out]).sqrt().item()
    return _tensors(net), error, float(labels[held_out].std(correction=0))


def _net(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
    )


def _tensors(net: nn.Sequential) -> dict[str, NDArray[np.float32]]:
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    pairs: dict[str, Tensor] = {}
    for name, layer in zip(LAYERS, layers, strict=True):
        pairs |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return {name: tensor.detach().numpy() for name, tensor in pairs.items()}


def _observations(seen: Candidates, chosen: NDArray[np.bool_]) -> Observations:
    people = seen.people
    return Observations(
        (people.keypoints_xy - seen.truth_xy)[chosen],
        sizes_of(people.keypoints_xy)[chosen],
        people.heat[chosen],
        seen.labelled[chosen],
        np.where(people.absorbed, PEAK, REGRESSED)[chosen],
    )


def _joined(found: list[Candidates]) -> Candidates:
    grouped = {name: np.concatenate([getattr(one.people, name) for one in found]) for name in vars(found[0].people)}
    oks, truth, labelled = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("oks", "truth_xy", "labelled")
    )
    return Candidates(Grouped(**grouped), oks, truth, labelled)
