"""train.py as a user runs it: a sweep on the pocket base, again, extended, killed and gone on with."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, make_photos

# few steps and few, short drawings: the way of the data is under test here, not its quality
SMALL = ("max_train_steps=12", "save_every_n_steps=6", "dataset.num_images=4", "launcher.threads=1",
         "launcher.devices=1", "tracker=none", "scoring.sampler.num_steps=4", "scoring.choice.strengths=[1.0]",
         "scoring.confirm.num_seeds=1", "scoring.confirm.prompts=screen", "scoring.refine.prompts=screen",
         "scoring.choice.confirm=1")


def rows_of(sweep_dir: Path) -> list[dict[str, str]]:
    with (sweep_dir / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished sweep of two ranks; returns results/."""
    results = tmp_path_factory.mktemp("results")
    run = train("-m", "network_dim=4,8", f"sweep.results_dir={results}", "sweep.name=ranks", *SMALL)
    assert run.returncode == 0, run.stdout + run.stderr
    return results


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=600)


def test_a_sweep_leaves_its_whole_record(finished: Path) -> None:
    rows = rows_of(finished / "ranks")
    assert [(row["number"], row["status"], row["network_dim"], row["steps"]) for row in rows] == [
        ("1", "done", "4", "12"), ("2", "done", "8", "12")]
    for axis in ("likeness", "adherence", "memorisation", "diversity", "usefulness"):
        assert {axis, f"{axis}_low", f"{axis}_high"} <= set(rows[0])
    assert all(float(row["attributed_minutes"]) > 0 for row in rows)
    assert all(row["verdict"] and row["file"] and row["strength"] for row in rows)
    entry = yaml.safe_load((finished / "ranks" / "sweep.yaml").read_text())
    assert entry["swept_keys"] == ["network_dim"] and entry["versions"]["torch"]
    for row in rows:
        trial = finished / "trials" / row["identity"]
        kinds = [json.loads(line)["kind"] for line in (trial / "metrics.jsonl").read_text().splitlines()]
        assert (kinds.count("train"), kinds.count("checkpoint"), kinds.count("score")) == (12, 2, 2)
        assert kinds.count("validation") == 2
        assert (trial / "checkpoints" / row["file"]).exists()
        assert list((trial / "images").glob("*.png"))
        assert not list((trial / "state").glob("*")), "a finished trial needs no state"
    diary = (finished / "ranks" / "diary.md").read_text()
    assert "Trial 1" in diary and "Results:" in diary
    assert "ranks" in (finished / "DIARY.md").read_text()


def test_the_same_command_again_does_nothing_and_says_so(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "trials").rglob("*") if path.is_file()}
    started = time.monotonic()
    run = train("-m", "network_dim=4,8", f"sweep.results_dir={finished}", "sweep.name=ranks", *SMALL)
    assert run.returncode == 0, run.stderr
    assert time.monotonic() - started < 10
    assert "all trials are done" in run.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (finished / "trials").rglob("*") if path.is_file()}


def test_one_value_more_runs_that_value_alone(finished: Path) -> None:
    run = train("-m", "network_dim=4,8,16", f"sweep.results_dir={finished}", "sweep.name=ranks", *SMALL)
    assert run.returncode == 0, run.stderr
    assert "3 trials, 2 already done" in run.stdout
    assert [row["network_dim"] for row in rows_of(finished / "ranks")] == ["4", "8", "16"]


def test_a_trial_of_another_sweep_is_found(finished: Path) -> None:
    run = train("network_dim=4", f"sweep.results_dir={finished}", "sweep.name=again", *SMALL)
    assert run.returncode == 0, run.stderr
    assert "1 already done" in run.stdout
    assert rows_of(finished / "again")[0]["identity"] == rows_of(finished / "ranks")[0]["identity"]


def test_a_sweep_is_scored_again_and_nothing_is_trained(finished: Path) -> None:
    run = train("-m", "network_dim=4,8", f"sweep.results_dir={finished}", "sweep.name=rescored", *SMALL)
    assert run.returncode == 0 and "2 already done" in run.stdout
    before = rows_of(finished / "rescored")
    folders = [finished / "trials" / row["identity"] for row in before]
    files = {path: path.stat().st_mtime_ns for folder in folders for path in (folder / "checkpoints").iterdir()}
    run = subprocess.run([sys.executable, "evaluate.py", "sweep=rescored", f"results_dir={finished}",
                          "scoring.confirm.first_seed=2000"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    after = rows_of(finished / "rescored")
    assert [row["identity"] for row in after] == [row["identity"] for row in before]
    assert [row["likeness"] for row in after] != [row["likeness"] for row in before]
    assert "2000" in (finished / "rescored" / "sweep.yaml").read_text()
    assert files == {path: path.stat().st_mtime_ns for folder in folders for path in (folder / "checkpoints").iterdir()}
    for folder in folders:
        kinds = [json.loads(line)["kind"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert kinds.count("train") == 12


def test_a_name_that_stands_for_another_question_is_refused(finished: Path) -> None:
    run = train("-m", "network_dim=4,8", "seed=7", f"sweep.results_dir={finished}", "sweep.name=ranks", *SMALL)
    assert run.returncode == 2
    assert "'ranks' stands for another question" in run.stderr and "seed: 42 there, 7 here" in run.stderr


def test_a_plan_starts_nothing(tmp_path: Path) -> None:
    run = train("-m", "network_dim=4,8", "plan=true", f"sweep.results_dir={tmp_path}", *SMALL)
    assert run.returncode == 0, run.stderr
    assert "2 trials" in run.stdout and "24 steps" in run.stdout and "1 pack" in run.stdout
    assert not (tmp_path / "trials").exists()


def test_a_killed_sweep_goes_on_to_the_same_files(tmp_path: Path) -> None:
    """SIGKILL to conductor and worker in the middle of the training; then the same command."""
    arguments = ["-m", "network_dim=4,8", "max_train_steps=24", "save_every_n_steps=12", "dataset.num_images=4",
                 "launcher.threads=1", "launcher.devices=1", "tracker=none", "scoring=none",
                 "pack.save_state_every_n_steps=4",
                 "sweep.name=k"]
    whole = train(*arguments, f"sweep.results_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    killed = subprocess.Popen([sys.executable, "train.py", *arguments, f"sweep.results_dir={tmp_path / 'killed'}"],
                              cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed").glob("trials/*/state/step-00000004*")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "killed").glob("trials/*/checkpoints/alexq-????????.safetensors")), "killed too late"

    resumed = train(*arguments, f"sweep.results_dir={tmp_path / 'killed'}")
    assert resumed.returncode == 0, resumed.stderr
    files = {path.relative_to(tmp_path / "whole"): path.read_bytes()
             for path in (tmp_path / "whole").glob("trials/*/checkpoints/*")}
    assert len(files) == 4
    for path, content in files.items():
        assert (tmp_path / "killed" / path).read_bytes() == content, path
    steps = [json.loads(line)["step"] for trial in (tmp_path / "killed" / "trials").iterdir()
             for line in (trial / "metrics.jsonl").read_text().splitlines() if json.loads(line)["kind"] == "train"]
    assert sorted(steps) == sorted([*range(1, 25)] * 2), "no step is logged twice, none is missing"


def test_ctrl_c_saves_and_a_dead_conductor_takes_its_worker_along(tmp_path: Path) -> None:
    arguments = ["network_dim=4", "max_train_steps=5000", "dataset.num_images=4", "launcher.threads=1",
                 "launcher.devices=1", "tracker=none", "scoring=none", f"sweep.results_dir={tmp_path}", "sweep.name=c"]
    running = subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not any(path.stat().st_size for path in tmp_path.glob("trials/*/metrics.jsonl")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130 and "goes on from here" in errors
    assert list(tmp_path.glob("trials/*/state/step-*.safetensors")), "the state is saved"

    again = subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT)
    import psutil

    while not (workers := psutil.Process(again.pid).children(recursive=True)):
        time.sleep(0.1)
    again.kill()
    again.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "an orphaned worker would share the trial's folder with the next one"


def test_what_cannot_work_is_a_row_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = train("-m", "optimizer=adamw,prodigy", "unet_lr=5e-5", "text_encoder_lr=5e-5,1e-5", "sweep.name=rates",
                f"sweep.results_dir={tmp_path}", "max_train_steps=2", "dataset.num_images=4", "launcher.threads=1",
                "tracker=none", "scoring=none", "network_dim=4")
    assert run.returncode == 0, run.stdout + run.stderr
    rows = rows_of(tmp_path / "rates")
    assert [row["status"] for row in rows] == ["done", "done", "done", "refused"]
    assert "unet_lr=5e-05 and text_encoder_lr=1e-05 with optimizer=prodigy" in run.stdout
    assert "one instance takes one rate" in rows[3]["reason"]
    assert "refused before anything ran" in (tmp_path / "rates" / "diary.md").read_text()
    assert not (tmp_path / "trials" / rows[3]["identity"]).exists()


def test_a_folder_that_cannot_be_used_is_a_row_until_it_is_mended(tmp_path: Path) -> None:
    good, bad = make_photos(tmp_path / "good", num_photos=2), make_photos(tmp_path / "bad", num_photos=3)
    broken = bad / "10_alexq man" / "001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    arguments = ["-m", f"dataset.dir={bad},{good}", "sweep.name=folders", f"sweep.results_dir={tmp_path / 'results'}",
                 "max_train_steps=1", "launcher.threads=1", "tracker=none", "scoring=none", "network_dim=4"]
    run = train(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    rows = rows_of(tmp_path / "results" / "folders")
    assert [row["status"] for row in rows] == ["refused", "done"]
    assert "1 files in" in rows[0]["reason"] and "001.png: not a readable image" in rows[0]["reason"]
    broken.write_bytes(whole)
    run = train(*arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert [row["status"] for row in rows_of(tmp_path / "results" / "folders")] == ["done", "done"]
