"""What the tests of the trainer share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.unit.train.crude_people import write_crude_people


@pytest.fixture(scope="session")
def crude_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder with a split "train" of drawn people; not to be changed."""
    folder = tmp_path_factory.mktemp("crude-people")
    write_crude_people(folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread_and_one_seed() -> Iterator[None]:
    """Networks this small gain nothing from threads, and lose much to spinning ones where cores are busy."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
