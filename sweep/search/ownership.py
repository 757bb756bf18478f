"""Whose a study of a shared database is: sweeps of one name in two folders would undo each other's."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import ConfigError
from sweep.files import write_text

if TYPE_CHECKING:
    import optuna

_ATTRIBUTE = "lora_sweep"  # of the study: {"id": its owner's, "folder": where that was last, for people}
_FILE = "study.owner"  # in the sweep's folder, so that a folder that is moved stays the owner
_CLAIM_S = 1.0  # how long a start may take between seeing a study without an owner and making it its own


def claim(study: optuna.Study, sweep_dir: Path) -> None:
    """Make a study that is new this folder's. Raises ConfigError if it is another's, naming that one."""
    mine = {"id": _own_id(sweep_dir), "folder": f"{sweep_dir.resolve()} on {socket.gethostname()}"}
    owner = study.user_attrs.get(_ATTRIBUTE)
    if owner is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_ATTRIBUTE, mine)
        time.sleep(_CLAIM_S)  # of two that start at once, the later claim stands
        owner = study.user_attrs[_ATTRIBUTE]
    if owner is None or owner["id"] != mine["id"]:
        whose = "that no sweep's folder owns" if owner is None else f"of the sweep in {owner['folder']}"
        raise ConfigError(
            f"The search's database holds a study {study.study_name!r} {whose}. Give this sweep another sweep.name; "
            "what is trained is found there too. Or, if nobody needs that study any more, delete it (optuna "
            f"delete-study --study-name {study.study_name} --storage URL): a sweep's own is built again from its "
            "trials.")
    if owner != mine:
        study.set_user_attr(_ATTRIBUTE, mine)  # moved since


def _own_id(sweep_dir: Path) -> str:
    path = sweep_dir / _FILE
    if not path.exists():
        write_text(path, secrets.token_hex(16))
    return path.read_text(encoding="ascii").strip()
