"""What of one trial a dashboard was given: an append-only list of rows beside the trial, which outlives the process.

A dashboard that keeps rows in the order of their coming and says how many it holds (W&B does, when a run goes on) tells
by this list which rows never came, whatever lost them: a killed process, a dead network, a full disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.files import read_jsonl, write_text


def key_of(row: Mapping[str, Any]) -> str:
    """What a row of metrics.jsonl is known by. One step may have several scores; of all else a rewound and repeated
    step is the same row."""
    return f"score:{row['score']['score_id']}" if row["kind"] == "score" else f"{row['kind']}:{row['step']}"


class Shown:
    """The list, read from its file.

    keys: of the rows, in the order of being shown. sweeps: those that the trial was shown for, oldest first.
    is_final: shown to its end and nothing was lost since. num_confirmed: so many rows the dashboard said it holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.keys: list[str] = []
        self.sweeps: list[str] = []
        self.is_final, self.num_confirmed = False, 0
        for line in read_jsonl(path):
            self._take(line)
        self._known = set(self.keys)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def add(self, keys: Sequence[str]) -> None:
        """Remember rows, before they are shown: a row that is listed and never came is shown again, one that came and
        is not listed would be shown twice."""
        self._append([{"row": key} for key in keys])
        self._known.update(keys)

    def end(self, sweep: str, *, is_final: bool) -> None:
        """The trial was shown to its end for a sweep."""
        self._append([{"ended": sweep, "is_final": is_final}])

    def confirm(self, num_rows: int) -> None:
        """The dashboard says that it holds so many rows."""
        self._append([{"confirmed": num_rows}])

    def keep(self, num_rows: int) -> None:
        """Forget all rows but the first: the others never came."""
        if num_rows < len(self.keys):
            del self.keys[num_rows:]
            self._known = set(self.keys)
            self.is_final, self.num_confirmed = False, num_rows
            lines = [{"row": key} for key in self.keys] + [{"ended": sweep, "is_final": False} for sweep in self.sweeps]
            write_text(self._path, "".join(f"{json.dumps(line)}\n" for line in [*lines, {"confirmed": num_rows}]))

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # cut short by a kill
            file.write("".join(f"{json.dumps(line)}\n" for line in lines).encode())
        for line in lines:
            self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        if "row" in line:
            self.keys.append(str(line["row"]))
        elif "ended" in line:
            self.sweeps = [name for name in self.sweeps if name != line["ended"]] + [str(line["ended"])]
            self.is_final = bool(line["is_final"])
        elif "confirmed" in line:
            self.num_confirmed = int(line["confirmed"])
