"""The command line: what it says when it is done, and what it refuses before anything is read."""

from pathlib import Path

import pytest

from sweep.network.bank import AdapterSpec
from sweep.network.tools.__main__ import main
from tests.unit.network.tools.test_make import lora_file


def test_from_two_loras_to_a_smaller_one(targets, tmp_path: Path, capsys) -> None:
    a, b = (lora_file(tmp_path / f"{seed}.safetensors", targets, AdapterSpec(dim=4, alpha=4), seed=seed)
            for seed in (1, 2))
    both, small = tmp_path / "both.safetensors", tmp_path / "small.safetensors"
    assert main(["merge", str(both), str(a), str(b), "--strengths", ".6", ".7"]) == 0
    assert "layers of rank 8; read back, it holds 100.0000%" in capsys.readouterr().out
    assert main(["resize", str(both), str(small), "--keep", ".9"]) == 0
    assert "of rank 1 to " not in (said := capsys.readouterr().out) and "% of the energy" in said
    assert main(["bake", str(tmp_path / "base"), "pocket", str(small)]) == 0
    assert main(["extract", str(tmp_path / "base"), "pocket", str(tmp_path / "c.safetensors"), "--rank", "8"]) == 0
    assert main(["inner", str(both), str(tmp_path / "inner.safetensors"), "--rank", "2"]) == 0


@pytest.mark.parametrize("arguments,message", [
    (["resize", "a.safetensors", "b.safetensors"], "Give --rank, or --keep"),
    (["resize", "a.safetensors", "b.safetensors", "--keep", "1.5"], "a share above 0, at most 1"),
    (["resize", "a.safetensors", "b.safetensors", "--rank", "0"], "a rank is at least 1"),
    (["resize", "a.safetensors", "a.safetensors", "--rank", "2"], "is one of the files that are read"),
    (["resize", "nowhere.safetensors", "b.safetensors", "--rank", "2"], "nowhere.safetensors can't be read"),
    (["merge", "b.pt", "a.safetensors"], "must end in .safetensors"),
    (["merge", "b.safetensors", "a.safetensors", "--strengths", "1", "2"], "1 LoRAs, but 2 --strengths"),
    (["extract", "nowhere", "pocket", "b.safetensors", "--rank", "4"], "nowhere does not exist"),
    (["extract", "pocket", "pocket", "b.safetensors", "--rank", "4"], "don't differ in any layer"),
])
def test_what_is_refused(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_depends_on_the_base_is_not_resized(targets, tmp_path: Path, capsys) -> None:
    path = lora_file(tmp_path / "a.safetensors", targets, AdapterSpec(dim=4, alpha=4, algorithm="dora"))
    assert main(["resize", str(path), str(tmp_path / "b.safetensors"), "--rank", "2"]) == 2
    assert "depends on the base's weights" in capsys.readouterr().err
    loha = lora_file(tmp_path / "loha.safetensors", targets, AdapterSpec(dim=4, alpha=4, algorithm="loha"))
    assert main(["merge", str(tmp_path / "b.safetensors"), str(loha)]) == 2
    assert "give --rank" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main(["bake", str(tmp_path / "there"), "pocket", str(loha)]) == 2
    assert "exists already" in capsys.readouterr().err
