"""A run killed at random moments and resumed each time: `python -m tests.unit.train.kills DATA OUT KILLS SEED`.

Each life is a forked process, so that torch is imported once. Prints, as JSON, how many lines the log had at each kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train.config import ScheduleConfig, TrainConfig
from mdpose_edge.train.loop import LOG_FILE, train
from tests.unit.train.crude_people import tiny_config

LONGEST_DELAY_S = 0.1
"""Of a kill after the log has grown: long enough to fall into an update, a checkpoint or the start of the next life."""


def exact_config(iterations: int) -> TrainConfig:
    """Every kind of state that a run carries: AdamW's moments, the scaler's scale, EMA, a worker, two passes."""
    return tiny_config(
        network=NetworkConfig(backbone="test_resnet", channels=16, head_convs=2),
        schedule=ScheduleConfig(iterations=iterations, kind="cosine", warmup=2),
        precision="fp16",
        ema=0.9,
        accumulate=2,
        workers=1,
        checkpoint_every=2,
    )


def _live(data: Path, out: Path, iterations: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        train(exact_config(iterations), data, out, resume="auto")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _lines(out: Path) -> int:
    path = out / LOG_FILE
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def main() -> None:
    data, out, kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    chance, iterations = random.Random(seed), 8 * (kills + 1)
    places = []
    for _ in range(kills):
        child = _live(data, out, iterations)
        target = _lines(out) + chance.randint(0, 6)
        while _lines(out) < target:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, LONGEST_DELAY_S))
        os.kill(child, signal.SIGKILL)
        places.append(_lines(out))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -signal.SIGKILL, f"it had ended before the kill, with {code}"
    code = os.waitstatus_to_exitcode(os.waitpid(_live(data, out, iterations), 0)[1])
    print(json.dumps({"iterations": iterations, "places": places}))
    sys.exit(code)


if __name__ == "__main__":
    main()
