import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.errors import LockedError
from sweep.lock import conductor_lock


def test_a_second_conductor_is_told_who_holds_the_sweep(tmp_path: Path) -> None:
    with conductor_lock(tmp_path / "alex"):
        code = ("import sys; from pathlib import Path; from sweep.lock import conductor_lock\n"
                "with conductor_lock(Path(sys.argv[1])): pass")
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path / "alex")], capture_output=True, text=True)
        assert second.returncode == 1
        holder = json.loads((tmp_path / "alex" / "conductor.lock").read_text())
        assert f"'alex' is being run by process {holder['pid']} on {holder['host']}" in second.stderr
    assert not (tmp_path / "alex" / "conductor.lock").exists()


def test_a_dead_holders_lock_is_taken_over(tmp_path: Path) -> None:
    code = ("import os, sys; from pathlib import Path; from sweep.lock import conductor_lock\n"
            "with conductor_lock(Path(sys.argv[1])): os._exit(9)")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert (tmp_path / "conductor.lock").exists()
    with conductor_lock(tmp_path):
        pass


def test_a_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    with conductor_lock(tmp_path):
        lock = tmp_path / "conductor.lock"
        other = {**json.loads(lock.read_text()), "host": "elsewhere"}
    lock.write_text(json.dumps(other))
    with pytest.raises(LockedError, match="on elsewhere since"), conductor_lock(tmp_path):
        pass
