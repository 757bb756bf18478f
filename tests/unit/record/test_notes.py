from pathlib import Path

import pytest
from record_on_disk import make_sweep

from sweep.errors import ConfigError
from sweep.record.note import add, main
from sweep.record.notes import read_notes
from sweep.record.views import write_views
from sweep.trial import trial_folder


@pytest.fixture
def sweep_dir(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "results", num_trials=2, num_sheets=0)


def test_notes_stand_in_the_diary_and_outlive_rewriting(sweep_dir: Path) -> None:
    results_dir = sweep_dir.parent
    add("alex:2", "looks like my brother", results_dir)
    add(f"{2:012x}", "second thought\nin two lines", results_dir)
    add("alex", "the photos were too dark", results_dir)
    for _ in range(2):
        write_views(sweep_dir)
        diary = (sweep_dir / "diary.md").read_text()
        first, second = diary.index("> looks like my brother"), diary.index("> second thought\n> in two lines")
        assert diary.index("**Trial 2**") < first < second
        assert diary.index("> the photos were too dark") < diary.index("## What was asked")
    assert "the photos were too dark" in (results_dir / "DIARY.md").read_text()


def test_a_trials_note_shows_in_every_sweep_that_has_it(tmp_path: Path) -> None:
    sweeps = [make_sweep(tmp_path / "results", num_trials=1, num_sheets=0, name=name) for name in ("one", "two")]
    assert add("one:1", "shared", tmp_path / "results") == sweeps
    assert all("> shared" in (sweep / "diary.md").read_text() for sweep in sweeps)


@pytest.mark.parametrize(("target", "message"), [
    ("alex:7", "no trial 7; its trials are 1, 2"), ("0000", "begins several identities"),
    ("axel", "Known there: alex")])
def test_what_names_nothing_is_refused(sweep_dir: Path, target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        add(target, "words", sweep_dir.parent)


def test_an_empty_note_is_refused(sweep_dir: Path) -> None:
    with pytest.raises(ConfigError, match="The note is empty"):
        add("alex", "  ", sweep_dir.parent)


def test_the_command_says_where_it_stands(sweep_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["alex:1", "hands are off", "--results-dir", str(sweep_dir.parent)]) == 0
    assert str(sweep_dir / "diary.md") in capsys.readouterr().out
    assert read_notes(trial_folder(sweep_dir.parent, f"{1:012x}").root) == ["hands are off"]
