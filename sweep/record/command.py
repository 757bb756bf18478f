"""What the commands of the record share: a user's error ends with its message and exit code 2, not with a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from sweep.errors import SweepError

USER_ERROR, INTERRUPTED = 2, 130


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command line and end the process with its exit code."""
    try:
        sys.exit(main())
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
