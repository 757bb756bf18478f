"""What both entry points share: what a user caused ends with its message and an exit code, not with a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.errors import SweepError, TrialsFailedError

TRIALS_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_DEFERRED: list[SweepError] = []

CONF_DIR = Path(__file__).parent.parent / "conf"


def run_guarded(main: Callable[[], object], config_name: str) -> int:
    """Run a Hydra entry point; returns the process's exit code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sweep.config import check_keys

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as they are, not as Hydra's own summary and exit
    try:
        check_keys(sys.argv[1:], known_keys(config_name))
        main()
        if _DEFERRED:
            raise _DEFERRED[0]
    except TrialsFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return TRIALS_FAILED
    except (SweepError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        print(f"error: {error}. What is trained is kept; mend it, and the same command goes on.", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextmanager
def past_hydra() -> Iterator[None]:
    """Inside a Hydra job: carry a user's error past Hydra, which would print the overrides above its message."""
    try:
        yield
    except SweepError as error:
        _DEFERRED.append(error)


def known_keys(config_name: str) -> list[str]:
    """Every dotted key that conf/ knows, over all options of all groups."""
    keys = list(_flat_keys(_read_yaml(CONF_DIR / f"{config_name}.yaml")))
    for folder in sorted(path for path in CONF_DIR.iterdir() if path.is_dir() and path.name != "experiment"):
        keys.append(folder.name)
        for option in sorted(folder.glob("*.yaml")):
            keys += _flat_keys(_read_yaml(option), f"{_package(option) or folder.name}.")
    return keys


def _flat_keys(tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if key in ("defaults", "hydra"):
            continue
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _flat_keys(value, f"{path}{key}.")


def _package(option: Path) -> str:
    """Where Hydra puts a file's keys if its first line says so: `# @package tracker.wandb`."""
    first = option.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("# @package ").strip() if first.startswith("# @package ") else ""


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text()) or {}
