"""The rendered world: the same from the same seed, rows independent, identities apart, ground truth true."""

from __future__ import annotations

import pytest
import torch

from sweep.pocket import world
from sweep.pocket.render import render


@pytest.fixture(scope="module")
def portraits():
    people = world.held_out_people()[torch.arange(24)]
    return people, world.draw_shots(people, seed=1)


def test_same_seed_same_pictures(portraits) -> None:
    people, shots = portraits
    again = world.draw_shots(people, seed=1)
    assert torch.equal(render(people, shots).images_BCHW, render(people, again).images_BCHW)
    assert not torch.equal(shots.scene, world.draw_shots(people, seed=2).scene)


def test_a_picture_does_not_depend_on_its_batch(portraits) -> None:
    people, shots = portraits
    all_of_them = render(people, shots).images_BCHW
    for row in (0, 7, 23):
        alone = render(people[torch.tensor([row])], shots[torch.tensor([row])]).images_BCHW[0]
        assert torch.allclose(alone, all_of_them[row], atol=1e-5)


def test_pictures_are_in_range_and_boxes_hold_a_face(portraits) -> None:
    people, shots = portraits
    rendered = render(people, shots)
    assert rendered.images_BCHW.shape == (24, 3, 64, 64)
    assert 0 <= rendered.images_BCHW.min() and rendered.images_BCHW.max() <= 1
    heights = rendered.face_box_B4[:, 3] - rendered.face_box_B4[:, 1]
    assert heights.min() >= 14, "a half-body's face must stay large enough to be recognised"
    for row in range(24):
        x0, y0, x1, y1 = rendered.face_box_B4[row].round().int().clamp(0, 64).tolist()
        inside = rendered.face_mask_BHW[row, y0:y1, x0:x1].sum()
        assert inside > 0.85 * rendered.face_mask_BHW[row].sum()
        assert rendered.head_mask_BHW[row].sum() > rendered.face_mask_BHW[row].sum()


def test_without_a_person_only_the_scene_is_left(portraits) -> None:
    people, shots = portraits
    kept = torch.arange(24) % 2 == 0
    both, full = render(people, shots, kept), render(people, shots)
    assert torch.equal(both.images_BCHW[kept], full.images_BCHW[kept])
    assert both.head_mask_BHW[~kept].sum() == 0 and both.face_box_B4[~kept].sum() == 0


def test_hair_override_changes_the_hair_and_not_the_scene(portraits) -> None:
    people, shots = portraits
    rows = torch.zeros(2, dtype=torch.long)
    two = shots[rows]
    two.hair_colour = torch.tensor([world.HAIR_COLOURS.index("red"), world.HAIR_COLOURS.index("blue")])
    two.style.zero_()
    two.hat.zero_()
    rendered = render(people[rows], two)
    difference = (rendered.images_BCHW[0] - rendered.images_BCHW[1]).abs().sum(dim=0)
    assert difference.max() > 0.5
    assert difference[rendered.head_mask_BHW[0] == 0].max() < 0.05


def test_people_differ_more_than_one_persons_photos() -> None:
    """In the same shot, two people's faces differ; the same person in the same shot is the same picture."""
    people = world.held_out_people()[torch.arange(20)]
    shot = world.draw_shots(people, seed=3)[torch.zeros(20, dtype=torch.long)]
    shot.glasses.zero_()
    faces = render(people, shot).images_BCHW.flatten(1)
    distance = torch.cdist(faces, faces) / faces.shape[1] ** 0.5
    assert distance[~torch.eye(20, dtype=torch.bool)].min() > 0.02


def test_train_and_held_out_people_share_nobody() -> None:
    train, held_out = world.train_people(), world.held_out_people()
    assert len(train) == world.NUM_TRAIN_PEOPLE and len(held_out) == world.NUM_HELD_OUT_PEOPLE
    assert torch.cdist(held_out.params_NP, train.params_NP).min() > 0.3
