"""Optuna's own plots of a sweep's study, and that others may read the study: with plain Optuna, with its dashboard."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna
import pytest

from sweep.errors import ConfigError
from sweep.plots import main, read_study
from tests.stand_in import run_sweep

GRID = ("network_dim=8,32,128", "unet_lr=1e-5,1e-4,1e-3")
SEARCH = ("search=random", "unet_lr=tag(log,interval(1e-6,1e-2))", "network=lora,loha", "search.num_trials=6",
          "search.pruning.rule=none")
PLOTS = ("plot_param_importances", "plot_slice", "plot_parallel_coordinate")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs a sweep whose training takes no time; returns its folder."""
    monkeypatch.setattr("sweep.conductor.dispatch.POLL_S", 0.01)
    monkeypatch.delenv("LORA_SWEEP_STORAGE", raising=False)

    def run(*arguments: str) -> Path:
        run_sweep([f"sweep.results_dir={tmp_path}", "sweep.name=s", "dataset.num_images=4", "tracker=none",
                   "launcher.devices=1", *arguments])
        return tmp_path / "s"

    return run


def figures(page: str) -> dict[str, list[Any]]:
    """The traces of each figure of a page, by its place in it."""
    found = {}
    for piece in page.split("Plotly.newPlot(")[1:]:
        if piece.lstrip().startswith('"plot_'):
            place, at = json.JSONDecoder().raw_decode(piece.lstrip())
            found[place], _ = json.JSONDecoder().raw_decode(piece.lstrip()[at:].lstrip(", \n"))
    return found


def test_a_grids_plots_show_its_trials(sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = sweep(*GRID)
    before = (folder / "study.log").read_bytes()
    capsys.readouterr()
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "optuna.html")
    page = (folder / "optuna.html").read_text()
    assert "s: 9 scored trials" in page and "<script src=" not in page
    found = figures(page)
    assert list(found) == [f"{plot}-usefulness" for plot in PLOTS]
    [importance] = found["plot_param_importances-usefulness"]
    assert set(importance["y"]) == {"network_dim", "unet_lr"}
    slices = found["plot_slice-usefulness"]
    assert [Counter(trace["x"]) for trace in slices] == [{8: 3, 32: 3, 128: 3}, {1e-5: 3, 1e-4: 3, 1e-3: 3}]
    *lines, _ = found["plot_parallel_coordinate-usefulness"]  # one a trial; the last one is the scale of colours
    assert len(lines) == 9
    best = max((dict(line["customdata"]) for line in lines), key=lambda shown: float(shown["usefulness"]))
    assert best == {"usefulness": "0.9", "network_dim": "32", "unet_lr": "0.0001"}, "the stand-in's peak"
    assert (folder / "study.log").read_bytes() == before and list(folder.glob("study*")) == [folder / "study.log"]


def test_several_objectives_have_plots_of_their_own(sweep: Callable[..., Path]) -> None:
    folder = sweep(*SEARCH, "search.objectives=[likeness,diversity]")
    assert main([str(folder)]) == 0
    assert list(figures((folder / "optuna.html").read_text())) == [
        f"{plot}-{objective}" for objective in ("likeness", "diversity") for plot in PLOTS]


def test_half_a_line_that_is_being_written_is_left_alone(sweep: Callable[..., Path]) -> None:
    path = sweep(*GRID) / "study.log"
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    content = path.read_bytes()
    assert len(read_study(path.parent).trials) == 9
    assert path.read_bytes() == content


def test_a_study_in_a_database(sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'team.db'}"
    monkeypatch.setenv("LORA_SWEEP_STORAGE", url)
    folder = sweep(*GRID)
    monkeypatch.delenv("LORA_SWEEP_STORAGE")
    assert not (folder / "study.log").exists()
    with pytest.raises(ConfigError, match=r"(?s)has no study.log.*--storage-file.*train.py -m .*network_dim=8,32,128"):
        main([str(folder)])
    (tmp_path / "url").write_text(url)
    assert main([str(folder), "--storage-file", str(tmp_path / "url")]) == 0
    assert "9 scored trials" in (folder / "optuna.html").read_text()
    (tmp_path / "s").rename(tmp_path / "other")
    with pytest.raises(ConfigError, match="The database holds no study 'other'"):
        main([str(tmp_path / "other"), "--storage-file", str(tmp_path / "url")])
    (tmp_path / "url").write_text("sqlite:////secret-folder/none.db")
    with pytest.raises(ConfigError, match=r"can't be read \(\w+\)") as raised:
        main([str(tmp_path / "other"), "--storage-file", str(tmp_path / "url")])
    assert "secret" not in str(raised.value)


def test_what_can_not_be_plotted_is_said(sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep("scoring=none", *GRID)
    with pytest.raises(ConfigError, match="s has 0 scored trials in its study; plots need 2"):
        main([str(folder)])
    monkeypatch.setattr("optuna.visualization.is_available", lambda: False)
    with pytest.raises(ConfigError, match="pip install plotly"):
        main([str(folder)])
    assert not (folder / "optuna.html").exists()


def test_plain_optuna_reads_a_study_without_writing(sweep: Callable[..., Path]) -> None:
    path = sweep(*SEARCH) / "study.log"
    before = path.read_bytes()
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert study.metric_names == ["usefulness"] and len(study.trials) == 6
    assert {trial.user_attrs["trial"] for trial in study.trials} == set(range(1, 7))
    assert path.read_bytes() == before


def test_the_dashboard_shows_a_sweep(sweep: Callable[..., Path]) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="pip install 'lora-sweep[dashboard]'")
    path = sweep(*GRID) / "study.log"
    before = path.read_bytes()
    backend = optuna.storages.journal.JournalFileBackend(str(path))

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with make_server("127.0.0.1", 0, dashboard.wsgi(optuna.storages.JournalStorage(backend)),
                     handler_class=Quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def asked(place: str) -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{place}", timeout=30) as answer:
                return json.load(answer)

        [summary] = asked("/api/studies")["study_summaries"]
        shown = asked(f"/api/studies/{summary['study_id']}?after=0")
        server.shutdown()
    assert summary["study_name"] == "s"
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 9
    assert path.read_bytes() == before
