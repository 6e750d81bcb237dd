"""What two processes do together, for test_distributed.py: `python -m tests.unit.train.ranks DATA OUT`.

The processes are forked, so that torch is imported once, and join as those of torchrun do: by environment variables.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdpose_edge.errors import MdposeError
from mdpose_edge.evaluate import coco_figures, figure_names
from mdpose_edge.families.mdpose.network import MDPoseNetwork, NetworkConfig, make_spec
from mdpose_edge.families.registry import evaluation_options
from mdpose_edge.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from mdpose_edge.train.data import training_batches
from mdpose_edge.train.distributed import World, joined_world
from mdpose_edge.train.loop import TrainProgress, train
from mdpose_edge.train.step import Stepper
from mdpose_edge.train.validation import Validation, Validator
from tests.unit.train.crude_people import tiny_config

RANKS = 2


def shared_config(**changes: Any) -> TrainConfig:
    """Eight images a batch, as SGD moves on them: AdamW divides by gradients that are rounding noise in places."""
    config = tiny_config(
        network=NetworkConfig(backbone="test_resnet", channels=16, head_convs=2),
        optimizer=OptimizerConfig(name="sgd", lr=1e-3),
        schedule=ScheduleConfig(iterations=6, kind="cosine"),
        batch_size=8,
        checkpoint_every=2,
        eval_every=3,
        ema=0.5,
        log_every=2,
    )
    return replace(config, **changes)


def validation(data: Path) -> Validation:
    return Validation(data, "train", evaluation_options("mdpose"), coco_figures, figure_names)


def gradients(world: World, data: Path, *, accumulate: int, freeze_statistics: bool = False) -> dict[str, Any]:
    """The loss and all gradients of the first batch, from the same random weights in every process."""
    config = shared_config(accumulate=accumulate, ema=None)
    spec = make_spec(config.network, config.input.spec())
    torch.manual_seed(0)
    network = MDPoseNetwork(spec, auxiliary_center=True)
    world.synchronise(network)
    stepper = Stepper(config, spec, network, world, data / "none")
    network.train(not freeze_statistics)
    batch = next(training_batches(config, spec, data, "train", rank=world.rank, ranks=world.size)(0))
    persons = round(world.sum([float(batch.targets["person_mask"].sum())])[0])
    loss, *_ = stepper.gradients(0, batch, persons)
    named = {name: p.grad.numpy().copy() for name, p in network.named_parameters() if p.grad is not None}
    running = {name: b.numpy().copy() for name, b in network.named_buffers() if "running" in name}
    return {"loss": np.array(loss), "persons": np.array(persons), **named, **running}


def poses_found(world: World, data: Path) -> list[Any]:
    """The results that an evaluation of a random network hands to its protocol, in the main process."""
    config, found = shared_config(), list[Any]()

    def score(split: Any, results: Any, *, sigmas: Any) -> dict[str, float | None]:
        found.extend(results)
        return {}

    spec = make_spec(config.network, config.input.spec())
    torch.manual_seed(0)
    network = MDPoseNetwork(spec, auxiliary_center=True)
    Validator(Validation(data, "train", evaluation_options("mdpose"), score, figure_names), spec, world, workers=0)(
        network
    )
    return found


def _work(data: Path, out: Path) -> None:
    with joined_world() as world:
        for accumulate, freeze in ((1, False), (2, True)):
            found = gradients(world, data, accumulate=accumulate, freeze_statistics=freeze)
            np.savez(out / f"gradients-{accumulate}-{world.rank}.npz", **found)
        (out / f"poses{world.rank}.json").write_text(json.dumps(poses_found(world, data)))
        train(shared_config(), data, out / "unbroken", validation=validation(data))
        stopped = train(shared_config(), data, out / "stopped", validation=validation(data), report=_stop_at_3)
        train(shared_config(), data, out / "stopped", validation=validation(data), resume="auto")
        errors = [_error_of(shared_config(), out / "broken-data", out / "broken")]
        errors.append(_error_of(shared_config(batch_size=9), data, out / "odd"))
        (out / f"rank{world.rank}.json").write_text(json.dumps({"stopped": stopped.name, "errors": errors}))


def _stop_at_3(progress: TrainProgress) -> None:
    if progress.iteration == 3:
        os.kill(os.getpid(), signal.SIGTERM)


def _error_of(config: TrainConfig, data: Path, out: Path) -> list[str]:
    try:
        train(config, data, out)
    except MdposeError as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


def _fork(rank: int, port: int, data: Path, out: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        values = (rank, rank, RANKS, RANKS, "127.0.0.1", port)
        os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
        _work(data, out)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    data, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [_fork(rank, port, data, out) for rank in range(RANKS)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
