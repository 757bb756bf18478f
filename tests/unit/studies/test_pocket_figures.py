"""What is measured of the base: only what prompts ask for, against photos as scoring refers to them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from studies import pocket_figures
from studies.pocket_base import (
    NUM_CHOICES,
    PROMPT_SEED,
    Drawn,
    Photos,
    adherence_figures,
    full_prompts,
    open_studio,
    read_photos,
    retrieval,
    unseen_pictures,
)
from studies.pocket_figures import main, painted_over, swap_figures, zero_shot_prompts
from sweep.pocket import SUBJECT_DIR, WEIGHTS_DIR, models
from sweep.pocket.render import render
from sweep.pocket.world import ATTRIBUTES, held_out_people, train_people


@pytest.fixture(scope="module")
def studio():
    return open_studio(WEIGHTS_DIR)


def test_prompts_ask_for_every_attribute_and_styles_vary() -> None:
    prompts, shots = full_prompts(60)
    named = {name: sum(name in prompt.mentioned for prompt in prompts) for name in ATTRIBUTES}
    assert {name for name, times in named.items() if times < 60} == {"sex"}
    assert 30 < named["sex"] < 60
    assert set(shots.style.tolist()) == {0, 1, 2}


def test_an_attribute_is_judged_where_its_prompt_names_it(studio) -> None:
    """A base that draws exactly what is asked for reaches what the judge reaches."""

    def draw(prompts: list[str], seeds: range) -> torch.Tensor:
        _, people, shots = unseen_pictures(len(prompts), PROMPT_SEED)
        return render(people, shots).images_BCHW

    perfect = SimpleNamespace(draw=draw, face=studio.face)
    figures, images, prompts = adherence_figures(perfect, WEIGHTS_DIR, 40)
    assert len(images) == len(prompts) == 40
    assert figures["base_scene"] == figures["base_scene"] | {"value": 1.0, "balanced": 1.0, "n": 40}
    assert figures["base_sex"]["n"] == sum(" man" in text or " woman" in text for text in prompts) < 40


def test_photos_of_a_person_are_like_each_other_and_less_so_after_the_autoencoder(studio) -> None:
    photos = Photos.of(studio, read_photos(SUBJECT_DIR / "holdout"))
    assert len(photos.ceiling) == len(photos.faces_RD) == 16
    assert sum(photos.renders()) / 16 > 0.9 > sum(photos.ceiling) / 16 > 0.5
    # Whom the base draws, if it drew the subject: as like the photos as they are to each other.
    own = Drawn(photos.faces_RD, torch.arange(16))
    assert own.floor(photos).mean() > 0.9


def test_zero_shot_prompts_are_one_per_value() -> None:
    assert zero_shot_prompts("glasses") == [
        "photo of a person", "photo of a person wearing glasses", "photo of a person wearing sunglasses"]  # fmt: skip
    assert len(zero_shot_prompts("scene")) == len(ATTRIBUTES["scene"])


def test_a_picture_is_found_among_the_prompts_of_others() -> None:
    """Each its own: the same pictures in another order find none of theirs."""
    prompts, shots = full_prompts(NUM_CHOICES)
    _, people, _ = unseen_pictures(NUM_CHOICES, PROMPT_SEED)
    texts, images = [prompt.text for prompt in prompts], render(people, shots).images_BCHW
    assert retrieval(WEIGHTS_DIR, images, texts)["value"] > 0.6
    assert retrieval(WEIGHTS_DIR, images.roll(1, dims=0), texts)["value"] < 0.1


def test_unseen_people_are_others() -> None:
    _, people, _ = unseen_pictures(500, seed=21)
    for known in (train_people(), held_out_people()):
        assert torch.cdist(people.params_NP, known.params_NP).min() > 0.1


def test_what_is_painted_over_is_the_face_alone() -> None:
    images, box = torch.rand(1, 3, 64, 64), torch.tensor([[20.0, 10.0, 40.0, 30.0]])
    painted = painted_over(images, box)
    assert (painted[0, :, 10:30, 20:40] == 0.5).all()
    assert torch.equal(painted[0, :, 30:], images[0, :, 30:])


def test_a_recogniser_that_sees_hats_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its likeness moves both ways, by who wears one on the photos; people who show the value already don't count."""

    def embed(images_BCHW: torch.Tensor) -> torch.Tensor:
        is_dark = (images_BCHW[:, :, :24].amin(dim=1).flatten(1).quantile(0.1, dim=1) < 0.3).float()
        return torch.nn.functional.one_hot(is_dark.long(), 2).float()

    monkeypatch.setattr(models, "load_face", lambda path: SimpleNamespace(embed=embed))
    monkeypatch.setattr(pocket_figures, "NUM_SWAPPED", 40)
    found = swap_figures(WEIGHTS_DIR)
    assert found["swapped_hat"]["value"] > 0.05 > found["swapped_clothes_type"]["value"]
    assert found["swapped_hat"]["n"] < 40


def test_no_prompts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--num-prompts", "0"])
    assert "--num-prompts 0: at least 1" in capsys.readouterr().err
