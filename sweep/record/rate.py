"""`python -m sweep.record.rate SWEEP`: judge pairs of images blind in a browser; the answers calibrate the scores."""

from __future__ import annotations

import base64
import io
import random
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.record.command import run_command
from sweep.record.facts import read_record
from sweep.record.ratings import QUESTIONS, RATINGS, Pair, Side, add_rating, agreement, pairs, read_ratings
from sweep.record.web import Answer, LocalServer, sweep_and_port

DEFAULT_PORT = 8736


class Rater:
    """Hands out one pair after the other. The page gets pictures, prompt and question: nothing that tells the sides."""

    def __init__(self, sweep_dir: Path, seed: int) -> None:
        self._dir = sweep_dir
        self._left = pairs(read_record(sweep_dir), seed)
        if not self._left:
            raise ConfigError(f"{sweep_dir.name} has no pair of images left to judge: it takes two scored files (or "
                              "strengths) on the same prompts, and what is answered is not asked again.")
        self._num_answered = len(read_ratings(sweep_dir))
        self._asked_s = time.monotonic()
        self._lock = threading.Lock()

    def page(self) -> Answer:
        text = resources.files("sweep.record").joinpath("page", "rate.html").read_text(encoding="utf-8")
        return "text/html; charset=utf-8", text.encode()

    def current(self) -> dict[str, Any]:
        with self._lock:
            return self._shown()

    def answer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Store an answer to the pair that is shown (an older page's is not taken) and show the next."""
        with self._lock:
            if self._left and given["number"] == self._num_answered:
                add_rating(self._dir, self._left[0], str(given["choice"]), time.monotonic() - self._asked_s)
                self._left.pop(0)
                self._num_answered += 1
            self._asked_s = time.monotonic()
            return self._shown()

    def _shown(self) -> dict[str, Any]:
        if not self._left:
            return {"number": self._num_answered, "left": 0}
        pair: Pair = self._left[0]
        return {"number": self._num_answered, "left": len(self._left), "question": QUESTIONS[pair.question],
                "prompt": pair.prompt, "images": [_picture(pair.left), _picture(pair.right)]}


def rating_server(sweep_dir: Path, port: int, seed: int) -> LocalServer:
    rater = Rater(sweep_dir, seed)
    return LocalServer(port, {"/": rater.page},
                       {"/next": lambda _: rater.current(), "/answer": rater.answer})


def _picture(side: Side) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(side.sheet) as sheet:
        sheet.crop(side.box).convert("RGB").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def main(arguments: Sequence[str] | None = None) -> int:
    sweep_dir, port = sweep_and_port("sweep.record.rate", __doc__, DEFAULT_PORT, arguments)
    with rating_server(sweep_dir, port, random.SystemRandom().getrandbits(32)) as server:
        print(f"{server.address}  (Ctrl-C ends it; every answer is stored at once)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"{agreement(read_ratings(sweep_dir))}: {sweep_dir / RATINGS}")
    return 0


if __name__ == "__main__":
    run_command(main)
