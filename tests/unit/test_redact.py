import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.record.notes import add_note, read_notes
from sweep.record.sweep_log import SWEEP_LOG, note
from sweep.redact import command_without_secrets, without_secrets

ROOT = Path(__file__).parents[2]
KEY, TOKEN, PASSWORD = "0123456789abcdef0123456789abcdef01234567", "hf_0123456789abcdefghij", "pa55word-of-the-study"


@pytest.mark.parametrize(("text", "kept"), [
    ("postgresql+psycopg://user:pa55word@host/db", "postgresql+psycopg://user:***@host/db"),
    ("postgresql://u:p@ss/w0rd@host/db", "postgresql://u:***@host/db"),
    ("mysql://u:abc/def@h", "mysql://u:***@h"),
    ("hf_token='a b c' and more", "hf_token=*** and more"),
    ('{"api_key": "a b", "x": 1}', '{"api_key": ***, "x": 1}'),
    ("401 for hf_abcdefgh1234", "401 for ***"),
    ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
    ("client_secret: s3", "client_secret: ***"),
    ("dataset.keep_tokens=2 max_token_length=150 tokenizer: null", None),
    ("https://huggingface.co/a/b see me@example.com", None),
    ("tokens = self.tokenizer(text), 2 of 3 hf_files", None)])
def test_what_a_secret_is(text: str, kept: str | None) -> None:
    assert without_secrets(text) == (text if kept is None else kept)


def test_what_the_environment_holds_is_known_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("LORA_SWEEP_STORAGE", "postgresql://u:p%40ssword@host/db")
    assert without_secrets(f"{KEY}, p@ssword, p%40ssword") == "***, ***, ***"


def test_an_argument_may_hold_spaces_and_quotes() -> None:
    kept = command_without_secrets(["train.py", "hf_token='a b c'", "+x.api_key=a b",
                                    "max_token_length=150"])
    assert not any(part in kept for part in ("a b", "b c"))
    assert "max_token_length=150" in kept


def test_logs_and_notes_are_blacked_out(tmp_path: Path) -> None:
    note(tmp_path, f"could not reach postgresql://user:{PASSWORD}@host")
    add_note(tmp_path, f"with hf_token={TOKEN}")
    assert PASSWORD not in (tmp_path / SWEEP_LOG).read_text() and read_notes(tmp_path) == ["with hf_token=***"]


_LEAKY = """
import os, sys, torch
def leak():
    if "sweep.worker.pack_run" in sys.modules:  # in a worker, not where the settings are tried out
        raise RuntimeError(f"no postgresql://user:{os.environ['PLANTED']}@host/db for {os.environ['HF_TOKEN']}")
class Steps(torch.optim.SGD):
    def step(self, *args, **kwargs):
        leak()
class Begins(torch.optim.SGD):
    def __init__(self, *args, **kwargs):
        leak()
        super().__init__(*args, **kwargs)
"""


@pytest.mark.parametrize(("optimizer", "status"), [
    ("Begins", "failed"), pytest.param("Steps", "diverged", marks=pytest.mark.slow)])
def test_a_whole_sweep_keeps_no_secret_of_its_command_environment_or_errors(optimizer: str, status: str,
                                                                           tmp_path: Path) -> None:
    """train.py itself, with a trial that ends on a message full of them."""
    (tmp_path / "leaky.py").write_text(_LEAKY)
    command = [sys.executable, "train.py", "sweep.name=leaky", f"sweep.results_dir={tmp_path / 'results'}",
               f'note="see postgresql://user:{PASSWORD}@host/db and hf_token={TOKEN}"', "optimizer=custom",
               f"optimizer.class_path=leaky.{optimizer}", "max_train_steps=1", "dataset.num_images=2",
               "scoring=none", "tracker=none", "launcher.devices=1", "launcher.threads=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240, env={
        **os.environ, "PYTHONPATH": str(tmp_path), "PLANTED": PASSWORD, "HF_TOKEN": TOKEN, "WANDB_API_KEY": KEY})
    said = done.stdout + done.stderr
    assert f"trial 1 {status}" in said, said
    sweep_dir = tmp_path / "results" / "leaky"
    assert "RuntimeError: no postgresql://user:***@host/db for ***" in (sweep_dir / "diary.md").read_text()
    [folder] = tmp_path.glob("results/trials/*")
    assert status == "diverged" or "Traceback" in (folder / "train.log").read_text()
    assert "note=" in (sweep_dir / "sweep.yaml").read_text(), "the command is kept"
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    for secret in (KEY, PASSWORD, TOKEN):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
        assert secret not in said
