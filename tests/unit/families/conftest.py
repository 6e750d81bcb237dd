"""Torch's threads and seed for the networks of the families, as for the trainer's."""

from tests.unit.train.conftest import crude_people, one_thread_and_one_seed

__all__ = ["crude_people", "one_thread_and_one_seed"]
