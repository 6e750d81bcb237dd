"""Several processes as one run: PyTorch's process group, DistributedDataParallel and synchronised batch norms.

torchrun starts the processes and says by environment variables who is who; without it there is one process, and
nothing here communicates.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mdpose_edge.common.files import name_text
from mdpose_edge.errors import ConfigError, TrainingError
from mdpose_edge.train.host_norm import convert_host_batch_norm

CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files and reports its progress."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Add up numbers over the processes; each calls this with as many, and gets the sums."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return list(tensor.tolist())

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each process passed, by rank, to all of them."""
        if self.size == 1:
            return [data]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        distributed.all_gather(lengths, torch.tensor([len(data)]))
        longest = max(1, *(int(length) for length in lengths))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        distributed.all_gather(padded, _as_tensor(data.ljust(longest, b"\0")))
        return [tensor.numpy()[: int(length)].tobytes() for tensor, length in zip(padded, lengths, strict=True)]

    def from_main(self, make: Callable[[], bytes]) -> bytes:
        """Make something in the main process, and give it to all; an error there is an error everywhere."""
        with self.together():
            data = make() if self.is_main else b""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)])
        distributed.broadcast(length, 0)
        tensor = _as_tensor(data) if self.is_main else torch.zeros(int(length), dtype=torch.uint8)
        distributed.broadcast(tensor, 0)
        return tensor.numpy().tobytes()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Pass the end of a block in all processes or in none: nobody waits for one that failed.

        Raises:
            TrainingError: the block failed in another process. Where it failed, its own exception goes on.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        self.raise_together(failure)

    def raise_together(self, failure: Exception | None) -> None:
        """Raise this process's failure; where it has none and another does, say so."""
        messages = self.gather(b"" if failure is None else name_text(str(failure) or repr(failure)).encode())
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message:
                got = f"its end: {message.decode()}"
                raise TrainingError(f"rank {rank}", expected="every process to go on", got=got, do="mend that first")

    def share_of(self, batch_size: int, accumulate: int) -> int:
        """Return how many images of a batch are this process's.

        Raises:
            ConfigError: the batch cannot be cut into equal parts.
        """
        if batch_size % (self.size * accumulate):
            raise ConfigError(
                "batch_size",
                expected=f"a multiple of {self.size} processes x accumulate {accumulate}",
                got=str(batch_size),
                do="change one of the three; batch_size is that of all processes together",
            )
        return batch_size // self.size

    def synchronise(self, network: nn.Module) -> None:
        """Let batch norms take their statistics over the batches of all processes; parameters and names stay."""
        if self.size > 1:
            convert = convert_sync_batchnorm if self.device.type == "cuda" else convert_host_batch_norm
            convert(network)

    def parallel(self, network: nn.Module) -> nn.Module:
        """Average gradients over the processes; all start from the main process's weights."""
        if self.size == 1:
            return network
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Synchronised batch norms keep their buffers equal, so that none need be sent. The option has two names: newer
        # versions of torch warn of the old one.
        known = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {name: False, "gradient_as_bucket_view": True}
        return DistributedDataParallel(network, devices, **options)


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes that torchrun started, and leave them again; alone where it started none.

    A process group that the program has joined already is used, and left as it is.

    Raises:
        ConfigError: more processes on this machine than it has GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    device = _local_device()
    joins = not distributed.is_initialized()
    if joins:
        distributed.init_process_group(device_id=device if device.type == "cuda" else None)
    try:
        yield World(distributed.get_rank(), size, device)
    finally:
        if joins:
            distributed.destroy_process_group()


def is_main_process() -> bool:
    """Say, without joining, whether this process is the one that reports."""
    return os.environ.get("RANK", "0") == "0"


def _local_device() -> torch.device:
    if not torch.cuda.is_available():
        return CPU
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus:
        raise ConfigError(
            "--nproc-per-node", expected=f"at most {gpus}, one for each GPU", got=str(here), do="lower it"
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def _as_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
