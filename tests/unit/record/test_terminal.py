import io
from pathlib import Path
from typing import Any

from record_examples import entry, result, score, trial

from sweep.record.terminal import Progress, duration, make_view, progress_bar, show_plan, show_results
from sweep.trial import DONE, FAILED, RUNNING, WAITING


class _Stream(io.TextIOWrapper):
    """A text stream in memory that may call itself a terminal."""

    def __init__(self, encoding: str = "utf-8", *, is_terminal: bool = False) -> None:
        self._bytes = io.BytesIO()
        self._is_terminal = is_terminal
        super().__init__(self._bytes, encoding=encoding, write_through=True)

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        return self._bytes.getvalue().decode(self.encoding)


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _progress(**changes: Any) -> Progress:
    values: dict[str, Any] = {"status": RUNNING, "step": 0, "num_steps": 100, "phase": "training", "latest": None}
    return Progress(**{**values, **changes})


def test_a_log_has_one_line_per_event() -> None:
    stream, clock = _Stream(), _Clock()
    view = make_view([trial(1), trial(2)], "alex", stream=stream, clock=clock)
    scored = score((0.7, 0.6, 0.8), stage="screen")
    for progress in (_progress(phase="loading"), _progress(status=WAITING, phase=""), _progress(), _progress(step=10),
                     _progress(step=30, latest=scored), _progress(step=30, latest=scored),
                     _progress(status=DONE, step=100, latest=scored)):
        clock.now_s += 0.5
        view.update({"id0001": progress})
    view.close()
    lines = stream.text.splitlines()
    assert len(lines) == 4
    assert "2 trials, 200 steps" in lines[0]
    assert lines[1] == "trial 1 network_dim=8: started at step 0 of 100"
    assert "step 30: likeness 0.80, usefulness 0.70 before bleed, good" in lines[2]
    assert lines[3] == "trial 1 network_dim=8: done at step 100 of 100"


def test_a_log_is_never_silent_for_over_a_minute() -> None:
    stream, clock = _Stream(), _Clock()
    view = make_view([trial(1)], "alex", stream=stream, clock=clock)
    for step in range(100):
        clock.now_s = step * 2.0
        view.update({"id0001": _progress(step=step // 2)})
    summaries = [line for line in stream.text.splitlines() if "steps/s" in line]
    assert len(summaries) == 3
    assert "0.2 steps/s" in summaries[0] and "of training left" in summaries[0]


def test_a_resumed_trial_does_not_inflate_the_rate() -> None:
    stream, clock = _Stream(), _Clock()
    view = make_view([trial(1)], "alex", stream=stream, clock=clock)
    for second in range(0, 71, 10):
        clock.now_s = float(second)
        view.update({"id0001": _progress(step=60 + second // 10)})
    assert "0.1 steps/s" in stream.text


def test_what_earlier_runs_finished_counts_in_the_summary_and_is_no_event() -> None:
    stream, clock = _Stream(), _Clock()
    done = _progress(status=DONE, step=100, phase="", latest=score((0.7, 0.6, 0.8)))
    view = make_view([trial(1), trial(2)], "alex", so_far={"id0001": done}, stream=stream, clock=clock)
    for second in range(0, 71, 10):
        clock.now_s = float(second)
        view.update({"id0001": done, "id0002": _progress(step=second // 10)})
    assert not any(line.startswith("trial 1 ") for line in stream.text.splitlines())
    assert "1/2 trials finished, 106/200 steps, 0.1 steps/s, about 16 min of training left, best so far: 1" in (
        stream.text)


def test_the_best_so_far_is_a_trials_best_checkpoint_not_its_last() -> None:
    stream, clock = _Stream(), _Clock()
    view = make_view([trial(1), trial(2)], "alex", stream=stream, clock=clock)
    view.update({"id0001": _progress(latest=score((0.8, 0.7, 0.9)))})
    view.update({"id0001": _progress(latest=score((0.3, 0.2, 0.4), score_id="x2")),
                 "id0002": _progress(latest=score((0.6, 0.5, 0.7)))})
    clock.now_s = 61.0
    view.update({})
    assert "best so far: 1 network_dim=8, usefulness 0.80" in stream.text


def test_what_breaks_a_limit_is_not_the_best_so_far() -> None:
    stream, clock = _Stream(), _Clock()
    view = make_view([trial(1), trial(2)], "alex", limits={"max_memorisation": 0.5}, stream=stream, clock=clock)
    clock.now_s = 61.0
    copying, own = score((0.9, 0.8, 0.95), memorisation=0.6), score((0.7, 0.6, 0.8), memorisation=0.2)
    view.update({"id0001": _progress(latest=copying), "id0002": _progress(latest=own)})
    clock.now_s = 130.0
    view.update({})
    assert "best so far: 2" in stream.text and "best so far: 1" not in stream.text


def test_a_terminal_shows_bars_and_survives_ascii() -> None:
    for encoding, bar in (("utf-8", "█"), ("ascii", "#")):
        stream, clock = _Stream(encoding, is_terminal=True), _Clock()
        view = make_view([trial(1), trial(2)], "alex", stream=stream, clock=clock)
        clock.now_s = 1.0
        view.update({"id0001": _progress(step=50, phase="scoring", latest=score((0.7, 0.6, 0.8)))})
        view.close()
        view.close()
        assert bar in stream.text and "50/100" in stream.text
        assert "scoring" in stream.text and "waiting" in stream.text and "best so far" in stream.text


def test_bars_fill_up_and_never_overflow() -> None:
    assert progress_bar(0, 10, is_unicode=False).count("#") == 0
    assert progress_bar(15, 10, is_unicode=False) == "#" * len(progress_bar(0, 10, is_unicode=False))
    assert len(progress_bar(0, 0, is_unicode=True)) == len(progress_bar(5, 10, is_unicode=True))


def test_the_end_is_a_table_a_sentence_and_the_place_of_the_diary(tmp_path: Path) -> None:
    stream = _Stream("ascii")
    results = [result(1, (0.8, 0.75, 0.85)), result(2, status=FAILED, reason="nicht möglich")]
    show_results(entry(), results, tmp_path / "alex", stream=stream)
    lines = stream.text.splitlines()
    assert lines[1].startswith("1 (best)") and "0.80 (0.75 to 0.85)" in lines[1]
    assert "trial 2 failed: nicht m?glich" in lines
    assert "<lora:alexq-000003:0.8>" in lines[-2]
    assert lines[-1] == f"diary: {tmp_path / 'alex' / 'diary.md'}"


def test_the_plan_counts_only_what_is_left() -> None:
    stream = _Stream()
    show_plan("alex", [trial(1), trial(2)], already_done=["id0001"], num_packs=1, num_files=5, estimated_s=600,
              stream=stream)
    assert "2 trials, 1 already done" in stream.text
    assert "to do: 100 steps, 1 pack, 5 LoRA files, about 10 min" in stream.text


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(s) for s in (40, 720, 11100)] == ["40 s", "12 min", "3 h 05 min"]
