"""What a plan says before anything runs, and the names under which it remembers what was measured."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sweep.conductor.file_size import counted_bytes
from sweep.conductor.plan import expected_s, plan_lines, remember_costs, remember_sizes
from sweep.config import compose
from sweep.data.folder import read_dataset
from sweep.evaluation.cells import cells_of, most_images
from sweep.evaluation.settings import ScoringConfig
from sweep.files import append_jsonl
from sweep.preflight import Checked
from sweep.room import Room, known_room, note_room
from sweep.schema import to_tree
from sweep.trial import DONE, Trial, TrialResult, trial_folder


@pytest.fixture(scope="module")
def config():
    return compose(["dataset.num_images=4"])


def trial(config: Any, train_id: str = "a", **changes: Any) -> Trial:
    return Trial(number=1, train_id=train_id, settings={}, config={**to_tree(config.train), **changes}, num_steps=10)


def checked(config: Any, one: Trial, num_checkpoints: int) -> Checked:
    train = config.train
    dataset = read_dataset(train.dataset, trigger=train.trigger, class_noun=train.class_noun, repeats=None)
    return Checked(trial=one, config=train, dataset=dataset, base_id="", num_checkpoints=num_checkpoints)


def test_a_plan_counts_every_confirmation(config, tmp_path: Path) -> None:
    scoring = config.scoring
    assert isinstance(scoring, ScoringConfig)
    one = checked(config, trial(config), 8)
    screen, refine, confirm = (len(cells_of(scoring, stage, one.dataset)) for stage in ("screen", "refine", "confirm"))

    def images(confirmed: int) -> int:
        chosen = replace(scoring, choice=replace(scoring.choice, confirm=confirmed, strengths=(1.0, 0.8),
                                                 refine_frac=0.25))
        [line] = [line for line in plan_lines(tmp_path, [one], [[one.trial]], chosen) if "scoring" in line]
        number = int(line.split()[2])
        assert number == most_images(chosen, one.dataset, 8)
        return number

    assert images(0) == 8 * screen + 4 * refine
    assert images(3) == images(0) + 3 * confirm
    assert images(9) == images(0) + 4 * confirm, "there are only so many arms"


def test_the_cost_of_a_checkpoint_is_that_of_the_own_scoring(config, tmp_path: Path) -> None:
    """Another sweep's scores of the same trial, here ten times as dear, stand in the same metrics."""
    answer = cast(Any, SimpleNamespace(score=SimpleNamespace(scoring_id="mine")))
    one = TrialResult(trial=trial(config), status=DONE, step=10, attributed_s=46.0, answer=answer, scores=())
    spent_s = 0.0

    def add(kind: str, own_s: float, scoring_id: str = "") -> None:
        nonlocal spent_s
        spent_s += own_s
        append_jsonl(trial_folder(tmp_path, "a").metrics, {
            "kind": kind, "attributed_s": spent_s, **({"score": {"scoring_id": scoring_id}} if scoring_id else {})})

    for _ in range(10):
        add("train", 0.1)
    add("score", 20.0, "other")
    add("score", 20.0, "other")
    add("score", 2.0, "mine")
    add("score", 2.0, "mine")
    remember_costs(tmp_path, "key", [one])
    assert expected_s(tmp_path, "key", num_steps=0, num_checkpoints=1, num_trials=0) == pytest.approx(2)
    assert expected_s(tmp_path, "key", num_steps=10, num_checkpoints=0, num_trials=0) == pytest.approx(1)
    assert expected_s(tmp_path, "key", num_steps=0, num_checkpoints=0, num_trials=1) == pytest.approx(1)


def file_base(config: Any, path: str) -> dict[str, Any]:
    return {**to_tree(config.train.base_model), "name": "file", "path": path}


def test_room_is_remembered_for_each_base_file(config, tmp_path: Path) -> None:
    small, large = (trial(config, base_model=file_base(config, f"{name}.safetensors")) for name in ("small", "large"))
    note_room(tmp_path, small, Room(gib_each=0.5, max_trials=20))
    assert known_room(tmp_path, small) is not None
    assert known_room(tmp_path, large) is None


@pytest.mark.parametrize("change", ["save_precision", "base_model"])
def test_file_sizes_are_remembered_for_what_they_depend_on(config, tmp_path: Path, change: str) -> None:
    values = {"save_precision": ("fp16", "float"), "base_model": [file_base(config, name) for name in ("a", "b")]}
    one, other = (trial(config, **{change: value}) for value in values[change])
    folder = trial_folder(tmp_path, one.train_id)
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "a.safetensors").write_bytes(bytes(1000))
    remember_sizes(tmp_path, [TrialResult(trial=one, status=DONE, step=10, attributed_s=1.0, answer=None, scores=())])

    def lines(asked: Trial) -> list[str]:
        return plan_lines(tmp_path, [checked(config, asked, 1)], [[asked]], config.scoring)

    assert "LoRA files: about 1e-06 GB" in lines(one)
    assert "LoRA files: about 1e-06 GB" not in lines(other)


@pytest.mark.parametrize("overrides", [
    (), ("network_dim=16", "save_precision=fp32"), ("text_encoder_lr=0",), ("unet_lr=0",),
    ("network=locon", "conv_dim=4"), ("network_dim=3", "conv_dim=5", "text_encoder_lr=0")], ids=" ".join)
def test_a_files_size_is_counted_from_headers_as_the_network_is_built(tmp_path: Path, overrides) -> None:
    import math

    from sweep.identity import base_identity
    from sweep.model.loading import load_base
    from sweep.network.spec import spec_of
    from sweep.network.targets import find_layers

    train = compose(list(overrides)).train
    targets = {target.key: target for target in find_layers(load_base(
        train.base_model, base_identity(train.base_model, tmp_path)))}
    num = sum(layer.form.dim * (math.prod(targets[key].weight_shape[1:]) + targets[key].out_features)
              for key, layer in spec_of(train).layers(list(targets.values())).items())
    assert counted_bytes(train) == num * (4 if train.save_precision == "fp32" else 2) > 0


@pytest.mark.parametrize("overrides", [("network=loha",), ("network.preset=attention",), ("method=dreambooth",)])
def test_what_headers_do_not_tell_is_said_to_be_not_known(config, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    train = compose(["dataset.num_images=4", *overrides]).train
    assert counted_bytes(train) is None
    one = replace(checked(config, trial(config, **to_tree(train)), 1), config=train)
    assert "GB: not known before the first file here" in plan_lines(tmp_path, [one], [[one.trial]], config.scoring)
