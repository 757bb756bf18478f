"""Where a sweep's Optuna study lies: a journal beside the sweep's record, or a database that a team shares.

Measured with one writer, a trial created and told: journal 10 ms, SQLite 47 ms, SQLite without flushes 19 ms, this
journal under 1 ms. So the journal it is; it also works on Windows and needs no driver.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sweep.errors import ConfigError, SweepError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STORAGE_VARIABLE = "LORA_SWEEP_STORAGE"
_WAITS_S = (0.5, 1, 2, 4, 8, 15, 30)
_T = TypeVar("_T")


def database_url(storage_file: str | None) -> str | None:
    """The URL that a file or the environment names; None for the embedded journal. Its password goes nowhere else."""
    if storage_file is None:
        return os.environ.get(STORAGE_VARIABLE) or None
    if "://" in storage_file:
        raise ConfigError("search.storage_file must be the path of a file that holds the URL, not the URL: what stands "
                          f"on the command line is kept in the record. Or set the variable {STORAGE_VARIABLE}.")
    try:
        return Path(storage_file).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"search.storage_file={storage_file}: {error.strerror}.") from error


def open_storage(sweep_dir: Path, url: str | None, say: Callable[[str], None]) -> BaseStorage:
    """The storage of one sweep's study; `say` is told what is waited for. A database that is away, or whose tables
    another sweep is just making, is tried again for a minute. Raises ConfigError for one that can't be reached, without
    its URL."""
    import optuna

    if url is None:
        path = sweep_dir / "study.log"
        _drop_half_a_line(path)
        return optuna.storages.JournalStorage(_journal(path))
    waits_s = iter(_WAITS_S)
    has_said = False
    while True:
        wait_s = next(waits_s, None)
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            raise ConfigError(f"The database needs a driver that is not installed: {error.name}. For PostgreSQL: "
                              "pip install 'psycopg[binary]', and a URL postgresql+psycopg://...") from None
        except Exception as error:
            reason = _reason(error, url)
            if wait_s is None or not _is_of_database(error):
                raise ConfigError(f"The search's database can't be opened ({reason}). Check the URL in "
                                  f"search.storage_file or {STORAGE_VARIABLE}, and that the server runs.") from None
        if not has_said:
            say(f"the search's database can't be opened yet, tried again for {sum(_WAITS_S):.0f} s: {reason}")
            has_said = True
        time.sleep(wait_s)


def patiently(act: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
    """What `act` returns for its arguments, tried again for a minute while the database is away."""
    for wait_s in _WAITS_S:
        try:
            return act(*arguments, **named)
        except Exception as error:
            if not _is_of_database(error):
                raise
            time.sleep(wait_s)
    try:
        return act(*arguments, **named)
    except Exception as error:
        raise SweepError(f"The search's database has been away for {sum(_WAITS_S):.0f} s ({type(error).__name__}). "
                         "What is trained is kept; the same command goes on.") from None


def _is_of_database(error: Exception) -> bool:
    from sqlalchemy.exc import DBAPIError, PendingRollbackError

    # Pending rollbacks: Optuna's session met the end of its connection in the middle of a transaction.
    return any(isinstance(cause, DBAPIError | PendingRollbackError)
               for cause in (error, error.__cause__, error.__context__))


def _reason(error: Exception, url: str) -> str:
    """What the driver says, without the password. Other errors may name the URL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import DBAPIError

    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, DBAPIError):
            said = " ".join(str(cause.orig).split())
            password = make_url(url).password
            return said.replace(password, "***") if password else said
    return type(error).__name__


def _drop_half_a_line(path: Path) -> None:
    """What a kill inside a write left at the end: the next line would be glued to it, and both lost."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _journal(path: Path) -> Any:
    from optuna.storages.journal import JournalFileBackend

    class Journal(JournalFileBackend):
        """Optuna's journal without its lock and its flushes: one conductor writes, under the sweep's own lock, and a
        study that a power cut damages is rebuilt from the trials. A lock left by kill -9 would cost 30 s."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            with path.open("ab") as file:
                file.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return Journal(str(path))
