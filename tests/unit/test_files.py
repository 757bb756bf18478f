from pathlib import Path

import pytest

from sweep.files import append_jsonl, read_jsonl, stable_hash, write_bytes


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


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})
