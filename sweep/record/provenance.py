"""What a result was made by: hardware, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

RECORDED = ("torch", "diffusers", "transformers", "accelerate", "bitsandbytes", "safetensors", "lpips", "hydra-core",
            "optuna", "wandb")


def hardware() -> str:
    """"2 cores AMD EPYC, Linux x86_64", of the machine that conducts. What a worker trained on, GPU or CPU, stands as
    `device_name` in its trials' packs.jsonl: only the worker loads torch, and it may run elsewhere."""
    return f"{os.cpu_count()} cores {_processor()}, {platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    """Of Python, of this program and of the libraries that can change a result."""
    found = {"python": platform.python_version()}
    for name in ("lora-sweep", *RECORDED):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of this program's repository, with "+changes" if its files differ; None outside a repository."""
    root = Path(__file__).parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "CPU"
