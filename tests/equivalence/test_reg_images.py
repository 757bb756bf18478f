"""Regularisation images that the base draws: once, whole, the same however the drawing was cut up."""

import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from sweep.files import write_json
from sweep.lock import cache_lock
from sweep.trial import DONE, RUNNING, PackSpec, trial_folder
from tests.equivalence.packs import Killed, files_of, killed_at_write, pack_of, statuses

QUICK = {"generate_reg": 12, "reg_num_steps": 2}


def pack(results: Path, photos: Path, **data) -> PackSpec:
    return pack_of(results, photos, {"drawn": {"repeats": 3, "num_steps": 3, "dataset": {**QUICK, **data}}})


def drawn(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.glob("cache/reg/*/*.png")}


@pytest.fixture(scope="module")
def undisturbed(worker, photos, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    spec = pack(results, photos)
    worker.run(spec)
    assert statuses(spec)[0].status == DONE, statuses(spec)[0].reason
    return results


def test_whole_eights_are_drawn_and_said(undisturbed: Path) -> None:
    assert sorted(drawn(undisturbed)) == [f"{number:05d}.png" for number in range(16)]
    [log] = undisturbed.glob("trials/*/train.log")
    assert "12 regularisation images are drawn by the base model: 'photo of a man'" in log.read_text()
    assert "regularisation images: 12 of 12 drawn" in log.read_text()
    assert len(set(drawn(undisturbed).values())) == 16
    [one] = undisturbed.glob("cache/reg/*/00000.png")
    assert Image.open(one).size == (64, 64)


@pytest.mark.parametrize("number", [4, 12, 30])
def test_killed_while_drawing_or_later_gives_the_same_files(worker, photos, tmp_path, undisturbed, number) -> None:
    spec = pack(tmp_path, photos)
    with pytest.raises(Killed), killed_at_write(number):
        worker.run(spec)
    worker.run(spec)
    assert drawn(tmp_path) == drawn(undisturbed)
    assert files_of(tmp_path) == files_of(undisturbed)


def test_damaged_and_foreign_images_are_drawn_again(worker, photos, tmp_path, undisturbed) -> None:
    spec = pack(tmp_path, photos)
    worker.run(spec)
    [first] = tmp_path.glob("cache/reg/*/00003.png")
    whole = first.read_bytes()
    first.write_bytes(whole[:-40])
    Image.new("RGB", (64, 64), "red").save(first.with_name("00005.png"))
    first.with_name("00009.png").unlink()
    other = pack_of(tmp_path, photos, {"other": {"repeats": 3, "num_steps": 3, "seed": 2, "dataset": QUICK}})
    worker.run(other)
    assert statuses(other)[0].status == DONE and drawn(tmp_path) == drawn(undisturbed)


def test_a_longer_set_keeps_the_shorter_ones_images(worker, photos, tmp_path, undisturbed) -> None:
    spec = pack_of(tmp_path, photos, {"more": {"repeats": 5, "num_steps": 1, "dataset": {**QUICK, "generate_reg": 20}}})
    worker.run(spec)
    found = drawn(tmp_path)
    assert len(found) == 24 and all(found[name] == content for name, content in drawn(undisturbed).items())


def test_a_stop_while_drawing_keeps_what_is_drawn(worker, photos, tmp_path, undisturbed) -> None:
    spec = pack(tmp_path, photos)
    write_json(Path(spec.control), {"command": "stop"})
    worker.run(spec)
    assert statuses(spec)[0].status == RUNNING and 0 < len(drawn(tmp_path)) < 16
    Path(spec.control).unlink()
    worker.run(spec)
    assert files_of(tmp_path) == files_of(undisturbed)


def test_one_worker_waits_while_another_draws(worker, photos, tmp_path, undisturbed) -> None:
    spec = pack(tmp_path, photos)
    folder = tmp_path / "cache" / "reg" / next(undisturbed.glob("cache/reg/*")).name
    running = threading.Thread(target=worker.run, args=(spec,))
    with cache_lock(folder):
        running.start()
        log = trial_folder(tmp_path, spec.trials[0].train_id).log
        until = time.monotonic() + 60
        while not (log.exists() and "is being filled by" in log.read_text()) and time.monotonic() < until:
            time.sleep(0.1)
        assert "is being filled by" in log.read_text() and not drawn(tmp_path)
        for name, content in drawn(undisturbed).items():
            (folder / name).write_bytes(content)
    running.join()
    assert files_of(tmp_path) == files_of(undisturbed)
    assert "drawn\n" not in log.read_text()
