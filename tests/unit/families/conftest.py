"""Torch's threads and seed for the networks of the families, as for the trainer's."""

from tests.unit.train.conftest import one_thread_and_one_seed

__all__ = ["one_thread_and_one_seed"]
