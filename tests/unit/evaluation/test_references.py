"""What is wrong with a user's photos is said in words, with the files' names."""

from dataclasses import replace
from pathlib import Path

import torch

from sweep.evaluation.backends.registry import load_backends
from sweep.evaluation.measure import Observer
from sweep.evaluation.references import duplicate_notes, face_notes, holdout_notes, listed
from sweep.pocket.subject import subject_shots
from sweep.pocket.world import held_out_people
from tests.unit.evaluation.evaluation_examples import SCORING

PHOTOS = [Path(f"{i}.png") for i in range(6)]


def person(number, num_faces=1, width=32):
    """Faces of one person, much alike."""
    noise = torch.randn(num_faces, width, generator=torch.Generator().manual_seed(number)) * 0.05
    return torch.nn.functional.normalize(torch.eye(width)[number] + noise, dim=1)


def rows(*people):
    return [person(number)[:1] for number in people]


def test_one_person_well_shown_needs_no_words():
    assert face_notes(PHOTOS, rows(0, 0, 0, 0, 0, 0), 0.5) == []
    assert duplicate_notes(PHOTOS, []) == [] and holdout_notes(PHOTOS, [0.5] * 6, 0.2) == []


def test_photos_without_a_face_are_counted_and_listed():
    faces = rows(0, 0, 0, 0, 0, 0)
    faces[1] = faces[4] = torch.zeros(0, 32)
    [note] = face_notes(PHOTOS, faces, 0.5)
    assert note.startswith("no face was found in 2 of 6 photos") and note.endswith("1.png, 4.png")


def test_a_second_person_is_named_by_file():
    [note] = face_notes(PHOTOS, rows(0, 0, 0, 1, 0, 1), 0.5)
    assert "two people" in note and "2 of 6" in note and note.endswith("3.png, 5.png")
    [note] = face_notes(PHOTOS, rows(0, 0, 0, 1, 0, 2), 0.5)
    assert "more than one person" in note


def test_photos_with_several_faces_are_listed():
    faces = rows(0, 0, 0, 0, 0, 0)
    faces[2] = torch.cat([person(0), person(3)])
    [note] = face_notes(PHOTOS, faces, 0.5)
    assert "1 of 6 photos show several faces" in note and note.endswith("2.png")


def test_held_out_photos_that_were_trained_on_are_listed():
    [note] = holdout_notes(PHOTOS[:3], [0.6, 0.01, 0.7], 0.2)
    assert "1 of 3 held-out photos are in the training set" in note and note.endswith("1.png")


def test_a_long_list_is_cut():
    assert listed([Path(f"{i}.png") for i in range(15)]).endswith("11.png and 3 more")


def test_the_whole_way_from_files(base, subject_dataset, tmp_path):
    """A stranger among the photos, a held-out photo that is also trained on, a photo twice, one without anybody."""
    from PIL import Image

    from sweep.pocket.render import render

    photos, holdout = list(subject_dataset.photos), list(subject_dataset.holdout)
    stranger, shots = held_out_people()[torch.tensor([92, 92, 92])], subject_shots(31, 3)[0]
    images = render(stranger, shots, torch.tensor([True, True, False])).images_BCHW
    for i, image in enumerate(images):
        path = tmp_path / f"new{i}.png"
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(path)
        photos.append(replace(photos[0], path=path))
    photos.append(replace(photos[1]))
    dataset = replace(subject_dataset, photos=tuple(photos), holdout=(*holdout, photos[0].path))
    notes = " | ".join(Observer(SCORING, load_backends(SCORING), dataset, base).real_photos().notes)
    assert "near-duplicates" in notes and "two people" in notes and "new0.png, new1.png" in notes
    assert "no face was found in 1 of" in notes and "held-out photos are in the training set" in notes
    clean = Observer(SCORING, load_backends(SCORING), subject_dataset, base).real_photos().notes
    assert clean == ()
