from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mdpose_edge.common.files import files_together, open_whole, write_whole


def test_a_file_appears_whole_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_whole(path, b"old")
    with pytest.raises(RuntimeError), open_whole(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["a.json"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_whole(pipe, b"all of it")
    reader.join(5)
    assert read == [b"all of it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_files_appear_together_beside_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with files_together(folder) as staging:
        (staging / "a").write_text("1")
        (staging / "b").write_text("2")
        assert not folder.exists()
    with files_together(folder) as staging:
        (staging / "b").write_text("3")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "1", "b": "3"}
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(folder.parent) == ["folder"]


def test_nothing_is_left_of_files_that_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files_together(tmp_path / "deep" / "folder") as staging:
        (staging / "a").write_text("1")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
