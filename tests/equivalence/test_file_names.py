"""Files are named as sd-scripts names them."""

import json
import re
from pathlib import Path

from sweep.worker.process import Worker
from tests.conftest import ROOT, make_photos
from tests.equivalence.packs import files_of, pack_of

GOLDEN = json.loads((ROOT / "tests/assets/kohya/file_names.json").read_text())


def test_each_epoch_the_end_and_steps_between(tmp_path: Path) -> None:
    """Three epochs of two steps, and every third step: what is an epoch's end is named by the epoch (sd-scripts writes
    it twice)."""
    photos = make_photos(tmp_path / "photos", num_photos=2, subset="1_alexq man")
    spec = pack_of(tmp_path / "results", photos, {"a": {"num_steps": 6, "repeats": 1}})
    Worker().run(spec)
    prefix = f"alexq-{spec.trials[0].train_id[:8]}"
    names = {path.partition("/")[2].replace(prefix, "lora") for path in files_of(tmp_path / "results")}
    assert names == {*GOLDEN["g_names"], "lora-step00000003.safetensors"}
    between = [name for name in GOLDEN["g_conv"] if "step" in name]
    assert len(between) == 3 and all(re.fullmatch(r"lora-step\d{8}\.safetensors", name) for name in between)
