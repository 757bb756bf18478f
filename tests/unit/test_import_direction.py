"""Imports point one way, and what a plan or a resume needs loads no torch (../README.md: the house)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "sweep"

# A room is a package or a file directly in sweep/. What starts the others is known to nothing beneath it:
STARTS = {"conductor", "worker", "preflight", "entry", "bench"}
ABOVE = {"record", "launch", "search", *STARTS}

# room -> rooms it must not import (at the top or inside a function); a room that is not named must not import STARTS
FORBIDDEN: dict[str, set[str]] = {
    "bench": {"conductor"},  # it measures what the others start
    "conductor": {"training", "network", "entry", "worker"},
    "preflight": {"training", "network", "launch", "record", "entry", "conductor", "worker"},
    "worker": {"launch", "record", "search", "conductor", "preflight", "entry"},
    "training": {"evaluation", "comparison", *ABOVE},
    "evaluation": {"training", *ABOVE},
    "network": {"training", "evaluation", "comparison", *ABOVE},
    "model": {"network", "training", "evaluation", "comparison", "data", *ABOVE},
    "data": {"network", "training", "evaluation", "comparison", *ABOVE},
    "pocket": {"data", "network", "training", "evaluation", "comparison", *ABOVE},
    "record": {"data", "network", "training", "evaluation", "model", *ABOVE},
    "launch": {"data", "network", "training", "evaluation", "comparison", "model", *ABOVE},
    "packing": {"data", "network", "training", "evaluation", "comparison", "model", *ABOVE},
}
# room -> the only rooms it may import
ONLY = {
    "trial": set(),
    "errors": set(),
    "files": set(),
    "randomness": set(),
    "schema": {"errors"},
    "threads": set(),
    "lock": {"errors", "files"},
    "comparison": {"trial"},
    "claims": {"comparison", "errors", "trial"},
    "pareto": {"trial"},
    "limits": {"trial"},
    "search": {"command_line", "config", "errors", "files", "trial", "schema", "comparison", "limits"},
}
ROOMS = sorted({path.stem for path in SWEEP.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
               - {"__init__"})


def imported_rooms(code: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides which room it comes from"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("sweep.")} & set(ROOMS)


@pytest.mark.parametrize("code", ["import sweep.worker", "import sweep.worker as w", "from sweep import worker",
                                  "from sweep.worker.process import Worker",
                                  "def f():\n  from sweep import files, worker as w"])
def test_every_way_to_import_a_room_is_seen(code: str) -> None:
    assert "worker" in imported_rooms(code)


@pytest.mark.parametrize("rule", sorted({*FORBIDDEN, *ONLY}))
def test_each_rule_is_for_a_room_that_exists(rule: str) -> None:
    assert rule in ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    files = [SWEEP / f"{room}.py"] if (SWEEP / f"{room}.py").exists() else sorted((SWEEP / room).rglob("*.py"))
    assert files
    for path in files:
        found = imported_rooms(path.read_text(encoding="utf-8")) - {room}
        wrong = found - ONLY[room] if room in ONLY else found & FORBIDDEN.get(room, STARTS)
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", ["conductor.conduct", "conductor.rescore", "preflight", "packing", "config",
                                    "comparison", "lock", "search.grid", "search.study", "launch.local",
                                    "record.diary", "record.terminal", "record.tracker", "record.wandb_sink",
                                    "evaluation.settings", "model.sources", "identity", "worker.process"])
def test_no_torch_before_a_worker_starts(module: str) -> None:
    code = (f"import sys, sweep.{module}\n"
            "heavy = {'torch', 'transformers', 'diffusers', 'wandb', 'optuna', 'numpy', 'lpips'} & set(sys.modules)\n"
            "sys.exit(f'loads {sorted(heavy)}' if heavy else 0)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_pickled() -> None:
    found = [path.relative_to(ROOT) for path in SWEEP.rglob("*.py")
             if re.search(r"import pickle|(?<!safetensors\.)torch\.save\(", path.read_text(encoding="utf-8"))]
    assert not found
