from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from sweep.command_line import CONF_DIR
from sweep.conductor.question import check_results_dir, question_of
from sweep.config import load, plain_tree
from sweep.errors import ConfigError


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


def test_a_question_of_before_there_were_methods_is_the_same() -> None:
    def asked(*overrides: str, without: str = "") -> dict[str, object]:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            composed = compose("config", list(overrides))
        tree, config = plain_tree(composed), load(composed)
        tree.pop(without, None)
        first = SimpleNamespace(dataset=SimpleNamespace(content="photos"), base_id="base")
        return question_of(SimpleNamespace(fixed=tree, swept_keys=(), config=config), first)

    assert asked() == asked(without="method")
    assert asked("method=dreambooth")["method.name"] == "dreambooth"
    assert asked("base_model=sd15")["dataset.reg_guidance_scale"] == 7.0, "as when it was no null"
