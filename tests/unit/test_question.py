from pathlib import Path

import pytest

from sweep.errors import ConfigError
from sweep.question import check_results_dir


def test_a_results_folder_may_be_new_and_is_no_file(tmp_path: Path) -> None:
    check_results_dir(tmp_path / "new" / "results")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_results_dir(tmp_path / "file" / "results")


def test_it_is_looked_at_where_there_is_no_statvfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr("os.statvfs")
    monkeypatch.delattr("os.ST_RDONLY")
    check_results_dir(tmp_path / "results")
