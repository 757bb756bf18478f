"""What both entry points share: what a user caused ends with its message and an exit code, not with a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweep.command_line import Known, check_command_line, explained
from sweep.errors import SweepError, TrialsFailedError
from sweep.threads import spin_little

TRIALS_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_DEFERRED: list[SweepError] = []


def run_guarded(main: Callable[[], object], config_name: str) -> int:
    """Run a Hydra entry point; returns the process's exit code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    known = Known(config_name)
    spin_little(os.environ)  # before torch is loaded, here or in a worker
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as they are, not as Hydra's own summary and exit
    try:
        check_command_line(sys.argv[1:], known)
        main()
        if _DEFERRED:
            raise _DEFERRED[0]
    except TrialsFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return TRIALS_FAILED
    except (SweepError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {explained(error, known)}", file=sys.stderr)
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
