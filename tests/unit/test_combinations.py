"""Settings that can't work together cost their own trial and no other."""

import re
from dataclasses import replace

import pytest

from sweep.combinations import ignored, refusal
from sweep.errors import ConfigError
from sweep.preflight import Preflight, first_read
from sweep.search.grid import Cell
from sweep.training.optimizer import OPTIMIZERS as FAMILY
from sweep.training.scheduler import SCHEDULERS
from tests.equivalence.trials import OPTIMIZERS, member
from tests.unit.test_config import loaded


@pytest.mark.parametrize(("settings", "message"), [
    (("repeats=10", "steps_per_epoch=1000"), "leave one of them out"),
    (("method=dreambooth", "conv_dim=8"), "conv_dim=8 with method=dreambooth: it acts on an adapter's matrices"),
    (("method=dreambooth", "network=dora"), "this method trains none. Leave network out"),
    (("method=dreambooth", "network.preset=attention"), "network.preset=attention with method=dreambooth"),
    (("method=dreambooth", "loraplus_lr_ratio=16"), "loraplus_lr_ratio=16 with method=dreambooth"),
    (("method=dreambooth", "unet_lr=0"), "train nothing"),
    (("method=dreambooth", "optimizer=prodigy"), "multiplies it by unet_lr. Set unet_lr=1"),
    (("method=textual_inversion", "unet_lr=1e-4"), "Leave unet_lr out (0); text_encoder_lr is the vectors' rate"),
    (("method=textual_inversion", "scale_weight_norms=1"), "scale_weight_norms=1 with method=textual_inversion"),
    (("method=textual_inversion", "method.num_vectors=40"), "method.num_vectors=40 of max_token_length=75 tokens"),
    (("method=textual_inversion", "method.init_word=' '"), "method.init_word is empty"),
    (("lr_warmup_steps=10",), "constant: it has no warm-up. Set scheduler=constant_with_warmup"),
    (("unet_lr=0", "text_encoder_lr=0"), "train nothing"),
    (("optimizer=prodigy", "text_encoder_lr=0.5"), "one instance takes one rate. Set both alike"),
    (("optimizer=prodigy", "loraplus_lr_ratio=16"), "Set loraplus_lr_ratio=null"),
    (("optimizer=adafactor", "loraplus_lr_ratio=16"), "optimizer.relative_step=false"),
    (("optimizer=adafactor", "optimizer.relative_step=false", "optimizer.warmup_init=true"), "constant_with_warmup"),
    (("optimizer=adamw_schedulefree", "ema_decay=.99"), "average of the weights already"),
    (("scheduler=adafactor",), "it stands for Adafactor's own steps"),
    (("scheduler=polynomial", "scheduler.lr_end=1e-3"), "unet_lr=0.0001 with scheduler.lr_end=0.001: the rate would"),
    (("optimizer=custom",), "needs a class, e.g. optimizer.class_path=torch.optim.Adagrad"),
    (("optimizer=custom", "optimizer.class_path=torch.optim.Adagard"), "has no attribute 'Adagard'"),
    (("optimizer=custom", "optimizer.class_path=no.such.Thing"), "No module named"),
    (("optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "optimizer.args={decay: 1}"),
     "unexpected keyword argument 'decay'"),
    (("optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "optimizer.args={lr: 1}"), "args holds lr"),
    (("optimizer=custom", "optimizer.class_path=torch.optim.LBFGS"), "without a closure"),
    (("optimizer=custom", "optimizer.class_path=collections.Counter"), "TypeError"),
    (("optimizer=custom", "optimizer.class_path=torch.optim.Muon"), "only supports 2D parameters"),
    (("optimizer=custom", "optimizer.class_path=dadaptation.DAdaptLion", "unet_lr=1", "text_encoder_lr=0.5"),
     "RuntimeError: Setting different lr values in different parameter groups"),
    (("optimizer=custom", "optimizer.class_path=dadaptation.DAdaptLion", "unet_lr=1", "text_encoder_lr=1",
      "loraplus_lr_ratio=2"), "Setting different lr values"),
    (("optimizer=custom", "optimizer.class_path=tests.unit.forgetful_optimizers.Remembers"), "can't be resumed"),
    (("optimizer=custom", "optimizer.class_path=tests.unit.forgetful_optimizers.Gambles"), "draws random numbers"),
    (("optimizer=adamw_schedulefree", "scale_weight_norms=1"), "Set scale_weight_norms=null"),
    (("optimizer=custom", "optimizer.class_path=schedulefree.AdamWScheduleFree", "scale_weight_norms=1"),
     "scale_weight_norms=1 with schedulefree.AdamWScheduleFree"),
    (("optimizer=custom", "optimizer.class_path=schedulefree.AdamWScheduleFree", "ema_decay=.9"),
     "average of the weights already"),
])
def test_what_cannot_work_says_what_to_do(settings: tuple[str, ...], message: str) -> None:
    assert message in refusal(loaded(*settings).train)


@pytest.mark.parametrize("settings", [
    ("optimizer=prodigy",), ("optimizer=prodigy", "text_encoder_lr=0"),
    ("optimizer=prodigy", "text_encoder_lr=0.5", "optimizer.per_part=true"),
    ("optimizer=dadapt_adam", "text_encoder_lr=0.5", "loraplus_lr_ratio=4"),
    ("optimizer=adafactor", "unet_lr=1", "text_encoder_lr=0.5", "scheduler=adafactor"),
    ("optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "optimizer.args={lr_decay: 0.01}"),
    ("optimizer=custom", "optimizer.class_path=schedulefree.RAdamScheduleFree"),
    ("optimizer=custom", "optimizer.class_path=torch.optim.Muon", "network.preset=attention"),
    ("optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "loraplus_lr_ratio=4", "lr_warmup_steps=5",
     "scheduler=cosine", "network=dora", "conv_dim=4"),
    ("method=dreambooth", "optimizer=prodigy", "unet_lr=1", "text_encoder_lr=1"),
    ("method=dreambooth", "optimizer=custom", "optimizer.class_path=torch.optim.Adagrad", "ema_decay=.99"),
    ("method=textual_inversion", "optimizer=custom", "optimizer.class_path=torch.optim.Adagrad"),
    ("optimizer=custom", "optimizer.class_path=torch.optim.RMSprop", "network=ia3", "text_encoder_lr=0"),
    ("optimizer=custom", "optimizer.class_path=dadaptation.DAdaptLion", "unet_lr=1", "text_encoder_lr=1",
     "network=lokr"),
    ("scheduler=constant_with_warmup", "lr_warmup_steps=0.1"), ("optimizer=lion8bit", "scheduler=cosine"),
])
def test_what_works_is_let_through(settings: tuple[str, ...]) -> None:
    assert refusal(loaded(*settings).train) == ""


def test_each_optimizer_works_with_each_scheduler() -> None:
    """Rates of its own group; only Adafactor has Adafactor's own schedule."""
    optimizers = {name for name in FAMILY if name != "custom"}
    schedulers = {name: loaded(f"scheduler={name}").train.scheduler for name in SCHEDULERS}
    refused = set()
    for optimizer in optimizers:
        train = loaded(f"optimizer={optimizer}").train
        refused |= {(optimizer, name) for name, each in schedulers.items() if refusal(replace(train, scheduler=each))}
    assert refused == {(optimizer, "adafactor") for optimizer in optimizers - {"adafactor"}}


def test_rates_that_adafactor_ignores_are_said() -> None:
    [words] = ignored(loaded("optimizer=adafactor", "unet_lr=1", "text_encoder_lr=0.5").train)
    assert "unet_lr=1, text_encoder_lr=0.5" in words and "no effect" in words
    assert ignored(loaded("optimizer=adafactor", "optimizer.relative_step=false").train) == ()
    assert ignored(loaded("optimizer=adamw").train) == ()


def cells(*overrides: tuple[str, ...]) -> list[Cell]:
    return [Cell(settings={"cell": " ".join(each)}, config=loaded(*each)) for each in overrides]


def test_the_rest_of_the_grid_goes_on(tmp_path) -> None:
    found = Preflight(tmp_path).check(cells(("optimizer=adamw",), ("optimizer=prodigy", "unet_lr=2"),
                                            ("optimizer=prodigy",)))
    assert [bool(one.trial.refused) for one in found] == [False, True, False]
    assert [one.trial.number for one in found] == [1, 2, 3]
    assert "unet_lr=2 and text_encoder_lr=1" in found[1].trial.refused


@pytest.mark.parametrize(("setting", "message"), [
    ("clip_skip=12", "clip_skip=12: this base's text encoder has"), ("max_token_length=100", "must be 75, 150 or 225"),
    ("base_model.resolution=60", "must be a multiple of 8")])
def test_a_cell_that_does_not_suit_the_base_costs_itself_alone(tmp_path, setting: str, message: str) -> None:
    found = Preflight(tmp_path).check(cells((), (setting,)))
    assert [bool(one.trial.refused) for one in found] == [False, True]
    assert message in found[1].trial.refused
    with pytest.raises(ConfigError, match=message):
        Preflight(tmp_path).check(cells((setting,)))


def test_a_grid_of_nothing_but_refused_cells_is_an_error(tmp_path) -> None:
    with pytest.raises(ConfigError, match="unet_lr=2 and.*\n.*unet_lr=3 and"):
        Preflight(tmp_path).check(cells(("optimizer=prodigy", "unet_lr=2"), ("optimizer=prodigy", "unet_lr=3")))


def test_members_of_the_equivalence_tests_are_allowed() -> None:
    for name in OPTIMIZERS:
        assert refusal(member("x", optimizer=name).config) == ""


@pytest.mark.parametrize(("setting", "message"), [
    ("dataset.num_buckets=5", "set dataset.enable_bucket=true"),
    ("dataset.masked_loss=alpha", "no photo in .* has an alpha channel"),
    ("dataset.masked_loss=folder", "needs dataset.mask_dir=FOLDER"),
    ("dataset.num_images=99", "dataset.num_images=99, but .* holds 4 photos"),
    ("dataset.dir=/nowhere/at/all", "there is no such folder"),
    ("dataset.reg_dir=/nowhere/at/all", "there is no such folder")])
def test_photos_that_a_cell_cannot_use_cost_that_cell_alone(tmp_path, photo_folder, setting: str, message: str) -> None:
    here = f"dataset.dir={photo_folder}"
    found = Preflight(tmp_path).check(cells((here, setting), (here,), (here, setting, "seed=7")))
    assert [bool(one.trial.refused) for one in found] == [True, False, True]
    assert re.search(message, found[0].trial.refused) and found[0].trial.refused == found[2].trial.refused
    assert first_read(found) is found[1] and len(found[1].dataset.photos) == 4
    with pytest.raises(ConfigError, match=message):
        Preflight(tmp_path).check(cells((here, setting)))


def test_what_has_no_effect_under_a_method_is_said() -> None:
    assert ignored(member("a").config) == ()
    [words] = ignored(member("a", method="dreambooth", dim=8, alpha=4).config)
    assert words == ("method=dreambooth trains no adapter: network_dim=8 and network_alpha=4 have no effect")


def test_a_trigger_that_no_caption_has_can_be_no_new_word(photo_folder, tmp_path) -> None:
    """A LoRA is still trained on them."""
    here = f"dataset.dir={photo_folder}"
    [with_lora, refused] = Preflight(tmp_path).check(cells(
        (here, "trigger=zork", "class_noun=man"), (here, "trigger=zork", "class_noun=man", "method=textual_inversion")))
    assert not with_lora.trial.refused
    assert re.search(r"trigger 'zork' .* none of the 4 captions has it, e.g. 'photo of alexq", refused.trial.refused)
    [found] = Preflight(tmp_path).check(cells((here, "method=textual_inversion")))
    assert not found.trial.refused
