"""A signal may come at any moment, also into the flag that it sets."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SIGNALLED = """
import signal, time
from sweep.stopping import STOP_ASKED

signal.signal(signal.SIGALRM, lambda *_: STOP_ASKED.set())
signal.setitimer(signal.ITIMER_REAL, 2e-4, 2e-4)
until_s = time.monotonic() + 1
while time.monotonic() < until_s:
    STOP_ASKED.clear()
    STOP_ASKED.wait(1e-6)
signal.setitimer(signal.ITIMER_REAL, 0)
print("through")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a timer's signals")
def test_a_signal_that_comes_while_the_flag_is_waited_for_blocks_nothing() -> None:
    """Thousands of them, as a single one would rarely hit the moment. Where one blocks, the next nests in it, until the
    recursion limit."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "through\n", done.stderr
