"""docs/knobs.md names keys that exist."""

import re

from sweep.entry import known_keys
from tests.conftest import ROOT


def test_keys_of_the_training_exist() -> None:
    """In the tables on optimizer, training, noise and files: `same` stands for the option's own name."""
    known = set(known_keys("config"))
    text = (ROOT / "docs/knobs.md").read_text(encoding="utf-8").split("## Optimizer and schedule")[1]
    named = set()
    for line in text.splitlines():
        if not line.startswith("| `"):
            continue
        options, here = (cell.strip() for cell in line.split("|")[1:3])
        cell = options if here == "same" else here
        named |= {word.split("=")[0] for word in re.findall(r"`'?([a-z_][\w.]*)", cell)}
    late = {"clip_skip", "max_token_length"}  # with the bases
    known |= {"conf", "experiment"}
    assert len(named) > 25
    assert named - known - late == set()
