"""A stand-in of W&B's HTTP API on loopback, which keeps what it is sent, and drops, delays and refuses as it is told.

It checks our payloads and our patience, not the real service. Answers are as the client asks for them, by the name of
the GraphQL operation.
"""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"
_REFUSALS = {"refuse": 503, "forbid": 403}
_TIME = "2026-11-21T00:00:00Z"


@dataclass
class Seen:
    """history: run -> offset -> row. summary, buckets: run -> the newest. files: path -> bytes. faults: those made.
    completed: the runs whose stream was ended."""

    history: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)


class StandIn(ThreadingHTTPServer):
    """faults: kind -> share of the requests treated so, drawn anew for each from one seed. Not every n-th: a request
    that is repeated in step with others would meet its fault for ever.

    drop: the connection is closed. refuse: 503. forbid: 403, which nobody repeats. delay: answered late. hang: never.
    """

    daemon_threads = True

    def __init__(self, faults: dict[str, float] | None = None, delay_s: float = 0.2) -> None:
        self.faults, self.delay_s, self.seen = faults or {}, delay_s, Seen()
        self.chance = random.Random(0)
        self.is_closing = threading.Event()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up on what was dropped is no news."""

    def fault(self) -> str:
        with self.lock:
            found = next((kind for kind, share in self.faults.items() if self.chance.random() < share), "")
            if found:
                self.seen.faults.append(found)
            return found


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._fails():
            return None
        if self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
            return self._send({"exitcode": None, "limits": {}})
        return self._send(self._graphql(json.loads(body)))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._fails():
            return
        with self.server.lock:
            self.server.seen.files[self.path] = body
        self._send({})

    def do_GET(self) -> None:
        if not self._fails():
            self._send({})

    def _fails(self) -> bool:
        fault = self.server.fault()
        if fault == "delay":
            time.sleep(self.server.delay_s)
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        if fault == "hang":
            self.server.is_closing.wait()
        if fault in _REFUSALS:
            self._send({"errors": [{"message": fault}]}, _REFUSALS[fault])
        return fault in ("drop", "hang", *_REFUSALS)

    def _stream(self, run: str, body: dict[str, Any]) -> None:
        with self.server.lock:
            for name, part in (body.get("files") or {}).items():
                rows = [json.loads(line) for line in part["content"]]
                if name == "wandb-history.jsonl":
                    kept = self.server.seen.history.setdefault(run, {})
                    kept.update({part["offset"] + i: row for i, row in enumerate(rows)})
                elif name == "wandb-summary.json" and rows:
                    self.server.seen.summary[run] = rows[-1]
            if body.get("complete"):
                self.server.seen.completed.append(run)

    def _graphql(self, body: dict[str, Any]) -> dict[str, Any]:
        query, variables = body["query"], body.get("variables") or {}
        match = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = match[1] if match else ""
        with self.server.lock:
            self.server.seen.operations.append(name)
            return {"data": self._answer(name, query, variables)}

    def _answer(self, name: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        seen, url = self.server.seen, self.server.address
        entity = {"id": "e1", "name": ENTITY}
        if name == "UpsertBucket":
            run = str(given.get("name") or given.get("id"))
            kept = seen.buckets.setdefault(run, {})
            kept.update({key: value for key, value in given.items() if value is not None})
            bucket = {"id": f"id-{run}", "name": run, "displayName": given.get("displayName") or run,
                      "description": None, "config": given.get("config") or "{}", "sweepName": None,
                      "historyLineCount": self._num_rows(run),
                      "project": {"id": "p1", "name": given.get("project") or "p", "entity": entity}}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name in ("Run", "RunHistoryKeys"):
            bucket = self._bucket(given["name"])
            keys = {"sets": [], "keys": {}, "lastStep": self._num_rows(given["name"]) - 1}
            run = bucket and {**bucket, "id": given["name"], "projectId": "1", "sweepName": None, "state": "finished",
                              "config": json.dumps({}), "historyKeys": keys, "createdAt": _TIME,
                              "user": {"name": ENTITY, "username": ENTITY}}
            return {"project": {"run": run}}
        if name == "RunResumeStatus":
            return {"model": {"name": given["project"], "entity": entity, "bucket": self._bucket(given["name"])}}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{url}/upload/{given.get('run')}/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            seen.artifacts.append(given.get("input") or given)
            return {"createArtifact": {"artifact": {"id": f"a{len(seen.artifacts)}", "digest": "d", "state": "PENDING",
                    "aliases": [], "artifactSequence": {"id": "s", "latestArtifact": None}}}}
        if name in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            file = {"id": "f", "name": "m", "displayName": "m", "uploadUrl": f"{url}/upload/manifest",
                    "uploadHeaders": []}
            key = name[0].lower() + name[1:]
            return {key: {"artifactManifest": {"id": "m", "file": file}}}
        if name == "CreateArtifactFiles":
            nodes = [{"node": {"id": str(i), "name": spec["name"], "displayName": spec["name"],
                      "storagePath": spec["name"], "uploadUrl": f"{url}/upload/artifact/{spec['name']}",
                      "uploadHeaders": [],
                      "uploadMultipartUrls": None, "artifact": {"id": spec.get("artifactID", "a")}}}
                     for i, spec in enumerate((given.get("storageLayout") and given["artifactFiles"]) or
                                              given.get("artifactFiles") or given["input"]["artifactFiles"])]
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if name == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a1", "digest": "d"}}}
        if "upsertView" in query:
            seen.views.append(given)
            return {"upsertView": {"view": {"id": base64.b64encode(b"View:1:x").decode(), "name": "nw-x-v",
                    "displayName": given.get("displayName") or "x", "type": "project-view", "spec": given.get("spec")},
                    "inserted": True}}
        viewer = {"id": "u1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "email": "", "admin": False,
                  "teams": {"edges": [{"node": entity}]}, "apiKeys": {"edges": []}}
        server = {"cliVersionInfo": None, "latestLocalVersionInfo": None, "serverVersionInfo": None, "features": []}
        return {"viewer": viewer, "serverInfo": server, "model": None, "project": None, "__type": None,
                "QueryType": {"fields": []}, "MutationType": {"fields": []}, "TypeInfo": None, "entity": None,
                "organization": None, "artifactCollectionType": None, "updateRun": {}, "createProject": None}

    def _num_rows(self, run: str) -> int:
        """A row is kept by its offset: who goes on with a run must begin behind what is there, or overwrites it."""
        return max(self.server.seen.history.get(run, {}), default=-1) + 1

    def _bucket(self, run: str) -> dict[str, Any] | None:
        """A run as those who resume it are told; None for a new one."""
        seen = self.server.seen
        if run not in seen.buckets:
            return None
        kept, rows = seen.buckets[run], seen.history.get(run, {})
        tail = [json.dumps(row) for _, row in sorted(rows.items())[-1:]]
        return {"name": run, "displayName": kept.get("displayName") or run, "logLineCount": 0, "eventsLineCount": 0,
                "historyLineCount": self._num_rows(run), "historyTail": json.dumps(tail), "eventsTail": "[]",
                "summaryMetrics": json.dumps(seen.summary.get(run, {})), "config": kept.get("config") or "{}",
                "tags": kept.get("tags") or [], "notes": None, "wandbConfig": json.dumps({"t": 1})}

    def _send(self, tree: Any, status: int = 200) -> None:
        body = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
