"""Whether other processes of this program can be worked with here."""

from __future__ import annotations

import multiprocessing

from mdpose_edge.errors import MdposeError


def check_shared_memory(*, where: str, do: str, error: type[MdposeError]) -> None:
    """Refuse to start processes where they could not be spoken to, before anything is written.

    Their queues need semaphores, which Linux keeps in /dev/shm: a container may be without.

    Args:
        where: the option or key that asks for processes.
        do: how to go on without them.
        error: the class of the error.

    Raises:
        MdposeError: of that class: there are no semaphores.
    """
    try:
        multiprocessing.Semaphore(1)
    except (OSError, ImportError) as reason:
        expected, got = "shared memory for processes (/dev/shm)", f"the system's answer: {reason}"
        raise error(where, expected=expected, got=got, do=f"mount it, or {do}") from reason
