from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mdpose_edge.common.files import files_together, name_text, open_whole, write_whole
from tests.architecture.package import REPOSITORY


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


WRITER = """
import sys
from pathlib import Path
from mdpose_edge.common.files import write_folder
from mdpose_edge.errors import OutputError
for _ in range(100):
    is_own = lambda folder: (folder / "0").is_file()
    with write_folder(Path("folder"), kind="set", is_own=is_own, error=OutputError) as folder:
        for name in "0123":
            (folder / name).write_text(sys.argv[1])
"""


def test_of_writers_of_one_folder_the_last_wins_whole(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", WRITER]
    writers = [subprocess.Popen([*command, name], cwd=tmp_path, env=environment) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["folder"]
    assert sorted(os.listdir(tmp_path / "folder")) == ["0", "1", "2", "3"]
    assert len({path.read_text() for path in (tmp_path / "folder").iterdir()}) == 1


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}], ids=str)
def test_a_name_is_told_alike_in_every_locale(tmp_path: Path, locale: dict[str, str]) -> None:
    assert name_text("caf\udce9 \u4eba") == "caf\\udce9 \u4eba"
    (tmp_path / "stra\u00dfe-\u4eba.png").touch()
    code = "import os; from mdpose_edge.common.files import name_text; print(ascii(name_text(os.listdir()[0])))"
    environment = {**os.environ, **locale, "PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == ascii("stra\u00dfe-\u4eba.png") + "\n", done.stderr
