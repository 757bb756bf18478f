"""The live report and the ratings over real HTTP on loopback."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from record_on_disk import make_sweep

from sweep.errors import ConfigError
from sweep.files import read_json, write_json
from sweep.record.facts import read_record
from sweep.record.notes import add_note
from sweep.record.rate import rating_server
from sweep.record.ratings import agreement, pairs, read_ratings
from sweep.record.serve import live_server
from sweep.record.web import LocalServer
from sweep.trial import trial_folder


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(tmp_path_factory.mktemp("servers") / "results", num_trials=2, num_steps=6)


@contextmanager
def running(server: LocalServer) -> Iterator[LocalServer]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def asked(server: LocalServer, path: str, given: Any = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)  # type: ignore[misc]
    if given is None:
        connection.request("GET", path, headers=headers)
    else:
        connection.request("POST", path, json.dumps(given), {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_the_live_report_changes_its_version_with_the_record(sweep_dir: Path) -> None:
    with running(live_server(sweep_dir, 0)) as server:
        status, page = asked(server, "/")
        assert status == 200 and '"live": true' in page and "connect-src 'self'" in page
        before = asked(server, "/version")
        assert before == asked(server, "/version")
        add_note(sweep_dir, "a thought meanwhile")
        assert asked(server, "/version") != before
        assert "a thought meanwhile" in asked(server, "/")[1]


def test_another_sweep_in_the_same_folder_does_not_reload_the_page(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=1, num_steps=6, num_sheets=0)
    with running(live_server(sweep_dir, 0)) as server:
        before = asked(server, "/version")
        others = trial_folder(sweep_dir.parent, "f" * 12)
        write_json(others.status, {"step": 1, "num_steps": 2})
        write_json(others.scores / "s.json", {})
        assert asked(server, "/version") == before


def test_the_live_report_follows_the_steps_but_not_each_of_them(sweep_dir: Path) -> None:
    status = next(sweep_dir.parent.glob("trials/*/status.json"))
    with running(live_server(sweep_dir, 0)) as server:
        versions = []
        for step in (0, 1, 49, 50, 51, 1000):
            write_json(status, {**read_json(status), "step": step, "num_steps": 1000})
            versions.append(asked(server, "/version")[1])
    assert versions[0] == versions[1] == versions[2] != versions[3] == versions[4] != versions[5]


def test_only_this_machine_and_its_own_pages_are_answered(sweep_dir: Path) -> None:
    with running(rating_server(sweep_dir, 0, seed=1)) as server:
        assert server.address.startswith("http://127.0.0.1:")
        assert asked(server, "/", Host="evil.example")[0] == 403
        assert asked(server, "/next", {}, Origin="http://evil.example")[0] == 403
        assert asked(server, "/next", {}, **{"Content-Type": "text/plain"})[0] == 403
        assert asked(server, "/../sweep.yaml")[0] == 404


def test_ratings_are_blind_stored_and_not_asked_again(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=2, num_steps=6, num_checkpoints=1)
    num_pairs = len(pairs(read_record(sweep_dir), seed=1))
    with running(rating_server(sweep_dir, 0, seed=1)) as server:
        first = json.loads(asked(server, "/next", {})[1])
        assert set(first) == {"number", "left", "question", "prompt", "images"}, "nothing tells which file is which"
        assert all(image.startswith("data:image/png;base64,") for image in first["images"])
        for choice in ("left", "right", "same"):
            number = json.loads(asked(server, "/next", {})[1])["number"]
            asked(server, "/answer", {"number": number, "choice": choice})
        asked(server, "/answer", {"number": 0, "choice": "left"})  # an older page's
        assert asked(server, "/answer", {"number": 3, "choice": "both"})[0] == 400
    ratings = read_ratings(sweep_dir)
    assert [row["choice"] for row in ratings] == ["left", "right", "same"]
    assert all((row["left"]["score_id"] and row["left"]["train_id"] != row["right"]["train_id"]) or
               row["left"]["strength"] != row["right"]["strength"] for row in ratings)
    assert len(pairs(read_record(sweep_dir), seed=2)) == num_pairs - 3
    assert agreement(ratings).startswith("3 answers")


def test_the_sides_are_drawn(sweep_dir: Path) -> None:
    record = read_record(sweep_dir)
    sides = {(pair.cell, pair.question, frozenset((pair.left.score_id, pair.right.score_id))): pair.left.train_id
             for pair in pairs(record, seed=1)}
    again = {(pair.cell, pair.question, frozenset((pair.left.score_id, pair.right.score_id))): pair.left.train_id
             for pair in pairs(record, seed=2)}
    assert sides.keys() == again.keys() and sides != again


def test_without_images_there_is_nothing_to_judge(tmp_path: Path) -> None:
    sweep_dir = make_sweep(tmp_path / "results", num_trials=2, num_steps=6, num_sheets=0)
    with pytest.raises(ConfigError, match="no pair of images left to judge"):
        rating_server(sweep_dir, 0, seed=1)


def test_a_port_that_is_taken_is_said(sweep_dir: Path) -> None:
    with running(live_server(sweep_dir, 0)) as server, pytest.raises(ConfigError, match="Give another with --port"):
        live_server(sweep_dir, int(server.server_address[1]))
