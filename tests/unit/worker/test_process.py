"""The worker's own process."""

import subprocess
import sys

START = """
import sys
from sweep.worker.process import UNUSED, import_libraries

import_libraries()
print(*[name for name in UNUSED if name in sys.modules])
import peft, scipy.special
from diffusers import UNet2DConditionModel
from sweep.pocket.models import load_pipeline

print(type(load_pipeline().unet) is UNet2DConditionModel, peft.LoraConfig().r)
"""


def test_a_worker_starts_without_what_it_does_not_use() -> None:
    """And can import it later, as an optimizer of bitsandbytes or a score does."""
    ended = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["", "True 8"]
