"""`python -m sweep.record.serve SWEEP`: the report live in a browser while the sweep runs, on this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from sweep.files import read_json, stable_hash
from sweep.record.command import run_command
from sweep.record.facts import read_record, trials_of
from sweep.record.report import report_html
from sweep.record.report_data import report_data
from sweep.record.web import Answer, LocalServer, sweep_and_port
from sweep.trial import trial_folder

DEFAULT_PORT = 8735


class LiveReport:
    """The report of what stands on disk now; made anew only when the record has grown."""

    def __init__(self, sweep_dir: Path) -> None:
        self._dir = sweep_dir
        self._made: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()

    def version(self) -> Answer:
        return "text/plain", self._state().encode()

    def page(self) -> Answer:
        with self._lock:
            state = self._state()
            if self._made[0] != state:
                self._made = state, report_html(report_data(read_record(self._dir)), live=True).encode()
            return "text/html; charset=utf-8", self._made[1]

    def _state(self) -> str:
        """What a new checkpoint, score, note or ending changes, and each twentieth of a trial's steps: with every step
        the page would never rest."""
        paths = [*self._dir.glob("*.jsonl"), self._dir / "views.json"]
        trials = [trial_folder(self._dir.parent, trial.train_id).root for trial in trials_of(self._dir)]
        for trial in trials:
            paths += [trial / "notes.jsonl", *trial.glob("scores/*.json"), *trial.glob("checkpoints/*")]
        facts = [(path.name, path.stat().st_size) for path in sorted(paths) if path.exists()]
        return stable_hash([facts, [_twentieths(trial / "status.json") for trial in trials]])


def _twentieths(status: Path) -> int:
    """How far a trial is."""
    try:
        now = read_json(status)
        return 20 * int(now["step"]) // max(1, int(now["num_steps"]))
    except (OSError, ValueError, KeyError):
        return 0  # just being replaced, or of another version


def live_server(sweep_dir: Path, port: int) -> LocalServer:
    live = LiveReport(sweep_dir)
    return LocalServer(port, {"/": live.page, "/version": live.version})


def main(arguments: Sequence[str] | None = None) -> int:
    sweep_dir, port = sweep_and_port("sweep.record.serve", __doc__, DEFAULT_PORT, arguments)
    with live_server(sweep_dir, port) as server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    run_command(main)
