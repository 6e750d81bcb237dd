"""Time, memory and error of GroupNLL, forward and backward, against the two obvious ways to write it.

    python benchmarks/loss.py [--json FILE] [--images 4 --persons 10 --components 11109 --keypoints 17 --group-size 3]

`product` multiplies densities as the reference code does, `logsumexp` is the same in log space by plain autograd, and
`group_nll` is the package's. Each runs in a fresh process with one thread. The time is that thread's processor time;
the memory is the growth of the process's peak resident set over the inputs (read from Linux's /proc); the errors are
the largest differences from float64, relative to the largest value. Each implementation has a process of its own, so
there are no rounds: the comparison rests on the fastest tenth of each one's repeats.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdpose_edge.bench.statistics import fastest_tenth
from mdpose_edge.families.mdpose.loss import KeypointGroups, Mixture, group_keypoints, group_nll

DENSITY_EPSILON = 1e-12
"""What the reference code adds to each density and to the mixture."""


@dataclass(frozen=True)
class Size:
    """Of the problem."""

    images: int
    persons: int
    components: int
    keypoints: int
    group_size: int


@dataclass(frozen=True)
class Problem:
    """A mixture, persons that fill it, and groups."""

    mixture: Mixture
    keypoints_xy: Tensor
    labelled: Tensor
    groups: KeypointGroups


def make_problem(size: Size, dtype: torch.dtype = torch.float32) -> Problem:
    """Draw a problem; the same size gives the same values in every dtype."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.images, 2 * size.keypoints, size.components)
    log_pi = torch.randn(size.images, size.components, generator=generator).log_softmax(1)
    mu = torch.rand(shape, generator=generator) * 5
    gamma = torch.nn.functional.softplus(torch.randn(shape, generator=generator)) + 0.05
    keypoints = torch.rand(size.images, size.persons, size.keypoints, 2, generator=generator) * 5
    labelled = torch.rand(size.images, size.persons, size.keypoints, generator=generator) < 0.8
    groups = group_keypoints(size.keypoints, size.group_size, generator)
    mixture = Mixture(*(tensor.to(dtype).requires_grad_() for tensor in (log_pi, mu, gamma)))
    return Problem(mixture, keypoints.to(dtype), labelled, groups)


def product(problem: Problem) -> Tensor:
    """Mean NLL from products of densities, image by image."""
    losses = []
    for pi, mu, gamma, target, labelled in _images(problem):
        density = torch.exp(-(target - mu).abs() / gamma) / (2 * gamma)
        density = torch.where(labelled, density, 1.0) + DENSITY_EPSILON
        parts = [density[:, _channels(group)].prod(dim=1) for group in problem.groups]
        likelihood = (torch.stack(parts, dim=1) * pi.exp()).sum(dim=2)
        losses.append(-(likelihood + DENSITY_EPSILON).log().mean(dim=1))
    return torch.cat(losses).mean()


def logsumexp(problem: Problem) -> Tensor:
    """Mean NLL from sums of log densities, image by image."""
    losses = []
    for log_pi, mu, gamma, target, labelled in _images(problem):
        log_density = torch.where(labelled, -(target - mu).abs() / gamma - (2 * gamma).log(), 0.0)
        parts = [log_density[:, _channels(group)].sum(dim=1) for group in problem.groups]
        losses.append(-(torch.stack(parts, dim=1) + log_pi).logsumexp(dim=2).mean(dim=1))
    return torch.cat(losses).mean()


def package(problem: Problem) -> Tensor:
    """Mean NLL as training computes it."""
    everyone = torch.ones(problem.labelled.shape[:2], dtype=torch.bool)
    return group_nll(problem.mixture, problem.keypoints_xy, problem.labelled, everyone, problem.groups)[1]


IMPLEMENTATIONS: dict[str, Callable[[Problem], Tensor]] = {
    "product": product,
    "logsumexp": logsumexp,
    "group_nll": package,
}


def measure(name: str, size: Size, repeats: int) -> dict[str, float]:
    """Run one implementation, forward and backward, in this process."""
    torch.set_num_threads(1)
    implementation, problem = IMPLEMENTATIONS[name], make_problem(size)
    _run(implementation, make_problem(Size(1, 2, 8, 2, 1)))  # loads the code, so that the memory below is the tensors'
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present
    before = _peak_mb()
    loss, gradients = _run(implementation, problem)
    peak = _peak_mb() - before
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        _run(implementation, problem)
        seconds.append(time.process_time() - start)
    exact_loss, exact_gradients = _run(logsumexp, make_problem(size, torch.float64))
    errors = [_error(got, want) for got, want in zip(gradients, exact_gradients, strict=True)]
    return {
        "ms": fastest_tenth(1e3 * np.array(seconds)),
        "median_ms": 1e3 * float(np.median(seconds)),
        "peak_mb": peak,
        "loss_error": _error(loss, exact_loss),
        "gradient_error": max(errors),
    }


def _run(implementation: Callable[[Problem], Tensor], problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = implementation(problem)
    mixture = problem.mixture
    return loss.detach(), torch.autograd.grad(loss, (mixture.log_pi, mixture.mu, mixture.gamma))


def _images(problem: Problem) -> list[tuple[Tensor, ...]]:
    mixture = problem.mixture
    target = problem.keypoints_xy.flatten(2)[..., None]
    labelled = problem.labelled.repeat_interleave(2, dim=2)[..., None]
    columns = (mixture.log_pi, mixture.mu, mixture.gamma, target, labelled)
    return list(zip(*(column.unbind() for column in columns), strict=True))


def _channels(group: tuple[int, ...]) -> list[int]:
    return [2 * keypoint + axis for keypoint in group for axis in (0, 1)]


def _error(got: Tensor, want: Tensor) -> float:
    return ((got.double() - want).abs().max() / want.abs().max()).item()


def _peak_mb() -> float:
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match.group(1)) / 1024


def main() -> None:
    """Measure all, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in (("images", 4), ("persons", 10), ("components", 11_109), ("keypoints", 17), ("group-size", 3)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest tenth counts, of ten or fewer the fastest")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size = Size(args.images, args.persons, args.components, args.keypoints, args.group_size)

    results = {}
    print(f"{'':10} {'ms':>8} {'median':>8} {'peak MB':>8} {'loss error':>11} {'gradient error':>15}")
    for name in IMPLEMENTATIONS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = results[name] = pool.apply(measure, (name, size, args.repeats))
        print(
            f"{name:10} {row['ms']:8.1f} {row['median_ms']:8.1f} {row['peak_mb']:8.1f} {row['loss_error']:11.1e} "
            f"{row['gradient_error']:15.1e}"
        )
    speedup = results["product"]["ms"] / results["group_nll"]["ms"]
    memory = results["product"]["peak_mb"] / results["group_nll"]["peak_mb"]
    print(f"group_nll is {speedup:.1f}x faster than product and peaks at 1/{memory:.1f} of its memory")
    if args.json:
        report = {"size": asdict(size), "threads": 1, "implementations": results}
        report |= {"speedup": speedup, "memory_ratio": memory}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
