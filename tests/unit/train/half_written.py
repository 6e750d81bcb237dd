"""A run killed in the middle of its second checkpoint: `python -m tests.unit.train.half_written DATA OUT`."""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

from mdpose_edge.families.mdpose.network import NetworkConfig
from mdpose_edge.train.loop import RESUME_FILE, TrainProgress, train
from tests.unit.train.crude_people import tiny_config


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it: a write beyond the limit would only fail
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def limit(progress: TrainProgress) -> None:
        if progress.iteration == 5:
            half = (out / RESUME_FILE).stat().st_size // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))

    train(tiny_config(network=NetworkConfig("test_resnet", channels=16, head_convs=2)), data, out, report=limit)


if __name__ == "__main__":
    main()
