from pathlib import Path

from sweep.record.sweep_log import SWEEP_LOG, note


def test_what_is_said_again_at_the_next_start_stands_there_once(tmp_path: Path) -> None:
    for _ in range(2):  # two starts of one sweep
        note(tmp_path / "alex", "skipped åse.png: it is 12 x 12 pixels")
        note(tmp_path / "alex", "skipped åse.png:\n  it is the same as 001.png")
    note(tmp_path / "alex", "skipped")
    lines = (tmp_path / "alex" / SWEEP_LOG).read_text(encoding="utf-8").splitlines()
    assert [line.partition("Z ")[2] for line in lines] == [
        "skipped åse.png: it is 12 x 12 pixels", "skipped åse.png: it is the same as 001.png", "skipped"]
