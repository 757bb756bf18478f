import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.files import append_jsonl, read_json, read_jsonl, stable_hash, write_bytes, write_json


def test_rows_survive_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "lo')  # killed here
    assert list(read_jsonl(path)) == [{"step": 1}]
    append_jsonl(path, {"step": 3})
    assert list(read_jsonl(path)) == [{"step": 1}, {"step": 3}]


def test_a_file_that_can_not_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"


def refuse_twice(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Path]:
    """Lets `Path.<name>` fail twice, as on Windows while another process has the file open; returns all calls."""
    calls: list[Path] = []
    real = getattr(Path, name)

    def fake(path: Path, *arguments: Any, **options: Any) -> Any:
        calls.append(path)
        if len(calls) <= 2:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, name, fake)
    return calls


def test_a_file_is_replaced_once_its_reader_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"step": 1})
    calls = refuse_twice(monkeypatch, "replace")
    write_json(path, {"step": 2})
    assert len(calls) == 3 and read_json(path) == {"step": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("read", [read_json, lambda path: next(read_jsonl(path))])
def test_a_file_is_read_once_it_has_been_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  read: Callable[[Path], Any]) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"step": 1})
    calls = refuse_twice(monkeypatch, "open")
    assert read(path) == {"step": 1}
    assert len(calls) == 3


def test_a_file_that_is_never_free_is_an_error_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("in use")

    monkeypatch.setattr(Path, "replace", refuse)
    started_s = time.monotonic()
    with pytest.raises(PermissionError, match="in use"):
        write_json(tmp_path / "status.json", {})
    assert time.monotonic() - started_s < 10


def test_text_is_utf_8_whatever_the_machine_prefers(tmp_path: Path) -> None:
    code = ("import sys; from pathlib import Path; from sweep.files import read_json, read_jsonl, write_text\n"
            "path, name = Path(sys.argv[1]), chr(0xe5) + 'lex'\n"
            "write_text(path, '{\"trigger\": \"' + name + '\"}' + chr(10))\n"
            "assert read_json(path) == next(read_jsonl(path)) == {'trigger': name}")
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "names.json")], env=environment, check=True)
    assert (tmp_path / "names.json").read_bytes() == '{"trigger": "\u00e5lex"}\n'.encode()


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})
