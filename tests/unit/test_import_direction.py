"""Imports point one way, and what a plan or a resume needs loads no torch (../README.md: the house)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "sweep"

# room -> rooms it must not import (at the top or inside a function)
FORBIDDEN = {
    "trial": {"*"},
    "training": {"evaluation", "record", "launch", "search", "conductor", "worker"},
    "evaluation": {"training", "record", "launch", "search", "conductor", "worker"},
    "network": {"training", "evaluation", "record", "launch", "search", "conductor", "worker"},
    "model": {"network", "training", "evaluation", "record", "launch", "search", "conductor", "worker", "data"},
    "data": {"network", "training", "evaluation", "record", "launch", "search", "conductor", "worker"},
    "record": {"data", "network", "training", "evaluation", "launch", "search", "conductor", "worker", "model"},
    "launch": {"data", "network", "training", "evaluation", "record", "search", "conductor", "worker", "model"},
    "packing": {"data", "network", "training", "evaluation", "record", "launch", "search", "conductor", "worker"},
    "worker": {"conductor", "launch", "search", "record"},
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("sweep.")}
    return rooms


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_one_way(room: str) -> None:
    files = [SWEEP / f"{room}.py"] if (SWEEP / f"{room}.py").exists() else sorted((SWEEP / room).rglob("*.py"))
    assert files
    for path in files:
        found = imported_rooms(path) - {room}
        wrong = found if FORBIDDEN[room] == {"*"} else found & FORBIDDEN[room]
        if path.name == "standalone.py":  # evaluate.py's own conductor prints and records
            wrong -= {"record"}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", ["conductor", "preflight", "packing", "config", "search.grid", "launch.local",
                                    "record.diary", "record.terminal", "record.tracker", "evaluation.settings"])
def test_no_torch_before_a_worker_starts(module: str) -> None:
    code = (f"import sys, sweep.{module}\n"
            "heavy = {'torch', 'transformers', 'diffusers', 'wandb', 'optuna', 'numpy', 'lpips'} & set(sys.modules)\n"
            "sys.exit(f'loads {sorted(heavy)}' if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_pickled() -> None:
    found = [path.relative_to(ROOT) for path in SWEEP.rglob("*.py")
             if re.search(r"import pickle|(?<!safetensors\.)torch\.save\(", path.read_text())]
    assert not found
