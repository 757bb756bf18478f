"""What goes wrong in one trial is its own: driven through the real worker, with photos, caches and files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sweep.data.folder import read_dataset
from sweep.identity import base_identity, train_id
from sweep.schema import to_tree
from sweep.train_config import TrainConfig, train_from_tree
from sweep.training.custom import Custom
from sweep.trial import DIVERGED, DONE, PackSpec, Trial, trial_folder
from tests.conftest import make_photos
from tests.equivalence.packs import statuses
from tests.equivalence.trials import member


def spec_of(results: Path, configs: list[TrainConfig], num_steps: int) -> PackSpec:
    photos = results / "photos"
    if not photos.exists():
        for path in make_photos(photos, num_photos=4).rglob("*.png"):
            Image.open(path).resize((96, 64)).save(path)
    trials = []
    for number, config in enumerate(configs, start=1):
        config = replace(config, dataset=replace(config.dataset, dir=str(photos), validation_split=0.25))
        config = train_from_tree(to_tree(config))
        dataset = read_dataset(config.dataset, trigger=config.trigger, class_noun=config.class_noun,
                               repeats=config.repeats)
        trials.append(Trial(number=number, settings={}, config=to_tree(config), num_steps=num_steps,
                            train_id=train_id(config, dataset, base_identity(config.base_model, results))))
    return PackSpec(trials=tuple(trials), scoring={"name": "none"}, results_dir=str(results), device="cpu:0", threads=1,
                    save_state_every_n_steps=10, control=str(results / "control.json"), validate=True)


def validation_losses(spec: PackSpec, number: int) -> list[float]:
    lines = trial_folder(Path(spec.results_dir), spec.trials[number].train_id).metrics.read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if row["kind"] == "validation"]


def faulty(kind: str, seed: int) -> TrainConfig:
    config = member("x", dim=4, num_steps=6, seed=seed, save_every_n_steps=2).config
    path = f"tests.equivalence.faulty_optimizers.{kind}"
    return replace(config, optimizer=Custom(name="custom", class_path=path, args=None), save_precision="fp16")


def test_an_optimizer_that_fails_costs_its_own_trial_alone(worker, tmp_path: Path) -> None:
    healthy = member("x", dim=4, num_steps=6, seed=3, save_every_n_steps=2).config
    spec = spec_of(tmp_path, [healthy, faulty("Raises", 1), faulty("Explodes", 2)], 6)
    worker.run(spec)
    found = statuses(spec)
    assert [status.status for status in found] == [DONE, DIVERGED, DIVERGED]
    assert found[0].step == 6 and len(validation_losses(spec, 0)) == 3
    assert "its optimizer failed at step 4 with RuntimeError: no fourth step" in found[1].reason
    assert "weights that fp16 can't hold after step 4" in found[2].reason
    for number in (1, 2):
        files = list(trial_folder(tmp_path, spec.trials[number].train_id).checkpoints.glob("*.safetensors"))
        assert [path.stem[-8:] for path in files] == ["00000002"], "the last good one, and no other"


def test_a_frozen_text_encoder_in_half_precision(worker, tmp_path: Path) -> None:
    """Its states come from the cache, which an fp32 run fills with others."""
    losses = {}
    for precision in ("no", "bf16"):
        config = member("x", dim=4, num_steps=2, text_encoder_lr=0.0, mixed_precision=precision).config
        spec = spec_of(tmp_path, [config], 2)
        worker.run(spec)
        assert [status.status for status in statuses(spec)] == [DONE]
        [losses[precision]] = validation_losses(spec, 0)
    assert losses["bf16"] != losses["no"] and losses["bf16"] == pytest.approx(losses["no"], rel=0.02)
    assert len(list((tmp_path / "cache" / "text").glob("*"))) == 2 * 3, "of three photos, in each precision"


def test_photos_that_are_cut_otherwise_are_validated_otherwise(worker, tmp_path: Path) -> None:
    config = member("x", dim=4, num_steps=1).config
    bucketed = replace(config, dataset=replace(config.dataset, enable_bucket=True, bucket_no_upscale=True))
    together = spec_of(tmp_path / "together", [config, bucketed], 1)
    worker.run(together)
    alone = spec_of(tmp_path / "alone", [bucketed], 1)
    worker.run(alone)
    assert validation_losses(together, 1) == pytest.approx(validation_losses(alone, 0), rel=1e-4)
    assert validation_losses(together, 1) != pytest.approx(validation_losses(together, 0), rel=1e-3)
