"""A small web server on this machine alone, for the live report and the ratings: loopback, no files, no other hosts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sweep.errors import ConfigError
from sweep.record.facts import find_sweep

Answer = tuple[str, bytes]  # content type, body
Get = Callable[[], Answer]
Post = Callable[[Mapping[str, Any]], Any]
HOST = "127.0.0.1"
MAX_POST_BYTES = 100_000


def sweep_and_port(command: str, about: str | None, default_port: int,
                   arguments: Sequence[str] | None) -> tuple[Path, int]:
    """The folder of the sweep and the port that a command line names: `SWEEP [--results-dir DIR] [--port N]`."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=about)
    parser.add_argument("sweep", metavar="SWEEP", help="a sweep's name or its folder")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    parser.add_argument("--port", type=int, default=default_port, help="0 = any that is free")
    given = parser.parse_args(arguments)
    return find_sweep(given.sweep, given.results_dir), given.port


class LocalServer(ThreadingHTTPServer):
    """Serves `gets` and `posts` by path. Requests that name another host are refused, so that a page elsewhere can't
    reach it through a name that points here (DNS rebinding); posts must come from its own pages."""

    daemon_threads = True

    def __init__(self, port: int, gets: Mapping[str, Get], posts: Mapping[str, Post] | None = None) -> None:
        self.gets, self.posts = gets, posts or {}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise ConfigError(f"Port {port} of this machine can't be used ({error.strerror}). Give another with "
                              "--port, or 0 for any that is free.") from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    server_version, sys_version = "LoRASweep", ""

    def do_GET(self) -> None:
        get = self.server.gets.get(self.path.partition("?")[0])
        if not self._is_ours() or get is None:
            return self.send_error(404 if get is None else 403)
        return self._send(*get())

    def do_POST(self) -> None:
        post = self.server.posts.get(self.path)
        num_bytes = int(self.headers.get("Content-Length") or 0)
        is_json = self.headers.get("Content-Type", "").startswith("application/json")  # no form elsewhere sends this
        if post is None or not self._is_ours() or not is_json or num_bytes > MAX_POST_BYTES:
            return self.send_error(404 if post is None else 403)
        try:
            answer = post(json.loads(self.rfile.read(num_bytes)))
        except (ValueError, KeyError, TypeError) as error:
            return self.send_error(400, explain=str(error))
        return self._send("application/json", json.dumps(answer).encode())

    def _is_ours(self) -> bool:
        port = self.server.server_address[1]
        origin = self.headers.get("Origin")
        ours = {f"{name}:{port}" for name in (HOST, "localhost")}
        return self.headers.get("Host") in ours and (origin is None or origin.removeprefix("http://") in ours)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet: a line per request helps nobody."""
