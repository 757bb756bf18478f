"""Each axis on arrays whose truth is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sweep.evaluation.adherence import ProbeTable, adherence, contrast_captions, drop_failed_probes, probe
from sweep.evaluation.backends.interface import squared_distances
from sweep.evaluation.backends.registry import load_backends
from sweep.evaluation.burn import burn, log_ratios, looks
from sweep.evaluation.copies import WHOLE, TrainingPhotos, crop_of
from sweep.evaluation.diversity import mean_pairwise_distance
from sweep.evaluation.leak import leak, leak_span, without_faces
from sweep.evaluation.likeness import ceiling_error, leave_one_out, likeness, mean_pairwise
from sweep.evaluation.measure import is_flat
from sweep.evaluation.memorisation import memo_gap, memo_rate, memorisation, normalised_gap, without_duplicates
from tests.unit.evaluation.evaluation_examples import SCORING


def faces(centre, num, spread=0.7, seed=0):
    noise = torch.randn(num, len(centre), generator=torch.Generator().manual_seed(seed))
    return F.normalize(centre + spread * noise / len(centre) ** 0.5, dim=1)


def test_likeness_does_not_depend_on_the_number_of_references():
    subject = F.normalize(torch.randn(64, generator=torch.Generator().manual_seed(9)), dim=0)
    images, references = faces(subject, 200, seed=1), faces(subject, 24, seed=2)
    few, many = mean_pairwise(images, references[:2]).mean(), mean_pairwise(images, references).mean()
    assert float(few) == pytest.approx(float(many), abs=0.03)
    assert np.mean(leave_one_out(references, references)) == pytest.approx(float(many), abs=0.05)
    assert mean_pairwise(images, references[:0]).tolist() == [0.0] * 200, "never NaN"


def test_likeness_rises_with_a_mixture_of_identities():
    subject, stranger = torch.eye(64)[0], torch.eye(64)[1]
    references = faces(subject, 10, seed=3)
    base = mean_pairwise(faces(stranger, 40, seed=4), references).numpy()
    values = [likeness(mean_pairwise(faces(F.normalize(a * subject + (1 - a) * stranger, dim=0), 40, seed=5),
                                     references).numpy(), base, float(np.mean(leave_one_out(references, references))))
              for a in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=0.1) and values[-1] == pytest.approx(1, abs=0.1)


def test_a_probe_finds_the_planted_value():
    values_VD = torch.eye(16)[:5]
    images_BD = F.normalize(values_VD[[2, 2, 4]] + 0.1, dim=1)
    assert probe(images_BD, values_VD, 50.0).argmax(dim=1).tolist() == [2, 2, 4]


def test_contrast_captions_are_plain_sentences():
    captions = contrast_captions(SCORING.attributes["glasses"], "man")
    assert captions["none"][:2] == ["photo of a man", "photo of a man, close-up"]
    assert captions["sunglasses"][0] == "photo of a man wearing sunglasses"


def test_a_probe_is_measured_between_photos_and_base():
    table = ProbeTable(np.array([0.5, np.nan, 0.9, 0.9]), np.array([0.9, np.nan, 0.9, 0.2]),
                       np.array([0.1, np.nan, 0.1, 0.1]))
    kept, failed = drop_failed_probes(table, 0.15)
    assert failed == [3]
    assert kept.value(np.arange(4)) == pytest.approx((0.4 + 0.8) / 1.6)
    assert np.isnan(kept.value(np.array([1])))


def test_adherence_weighs_probes_and_clip():
    assert adherence({"hair": 1.0, "clothes": 0.5, "glasses": float("nan")}, 0.5, 0.6) == pytest.approx(0.65)
    assert adherence({"hair": 0.7}, None, 0.6) == pytest.approx(0.7)
    assert np.isnan(adherence({"hair": float("nan")}, 0.9, 0.6))


def test_planted_copies_are_counted_although_the_photos_hold_duplicates(subject_dataset):
    from sweep.data.cache import load_pixels

    photos = torch.stack([load_pixels(photo.path, 64) for photo in subject_dataset.photos])
    fresh = torch.stack([load_pixels(path, 64) for path in subject_dataset.holdout[:12]])
    again = (photos[:4] * 255 + 1).clamp(0, 255) / 255
    copies = load_backends(SCORING).copies
    photos_RP = copies.vectors(torch.cat([photos, again]))
    kept = without_duplicates(squared_distances(photos_RP, photos_RP), SCORING.copies.duplicate_distance)
    assert kept == list(range(14))
    found = TrainingPhotos(photos[kept], copies, SCORING.copies).nearest(torch.cat([fresh, again]))
    assert memo_rate([near.distance for near in found], SCORING.copies.copy_distance) == 4 / 16
    assert [near.photo for near in found[-4:]] == [0, 1, 2, 3]


def test_copies_are_found_mirrored_cropped_and_recoloured(subject_dataset):
    from sweep.data.cache import load_pixels

    photos = torch.stack([load_pixels(photo.path, 64) for photo in subject_dataset.photos[:6]])
    index = TrainingPhotos(photos, load_backends(SCORING).copies, SCORING.copies)
    tinted = (photos * torch.tensor([1.15, 0.95, 0.8]).view(3, 1, 1) + 0.03).clamp(0, 1)
    changed = {"mirrored": photos.flip(3), "recoloured": tinted,
               "cropped": torch.cat([crop_of(photo[None], 0.1, (0.1, 0.85)) for photo in photos]), WHOLE: photos}
    for way, images in changed.items():
        found = index.nearest(images)
        assert [near.photo for near in found] == list(range(6)), way
        assert max(near.distance for near in found) < SCORING.copies.copy_distance, way
        assert sum(way in near.way for near in found) >= 5, way
    others = index.nearest(photos, leave_out=range(6))
    assert all(near.photo != i and near.distance > SCORING.copies.copy_distance for i, near in enumerate(others))


def test_leak_is_none_at_the_base_full_at_the_photos_and_unknown_without_anything_in_common():
    base = np.array([0.5, 0.6, 0.4])
    assert leak(base, base, [0.9, 0.9]) == pytest.approx(0)
    assert leak(base + 0.4, base, [0.9, 0.9]) == pytest.approx(1)
    assert leak_span(base, [0.52, 0.5]) == pytest.approx(0.01)
    assert np.isnan(leak(base, base, [0.5, 0.4])) and np.isnan(leak(base, base, []))


def test_an_image_of_one_colour_holds_nothing_whatever_the_colour():
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 16, 16)
    assert is_flat(red) and is_flat(torch.full((3, 16, 16), 0.5)) and is_flat(red + 0.001 * torch.rand(3, 16, 16))
    assert not is_flat(torch.linspace(0, 1, 16).expand(3, 16, 16))


def test_few_reference_photos_and_few_prompts_make_a_score_less_sure():
    """The error of the ceiling moves a likeness of 1 by all of it, one of 0 not at all; 4 prompts hide more than 16."""
    assert ceiling_error(0.0, 0.1, (0.8, 0.9, 1.0)) == 0
    assert ceiling_error(1.0, 0.1, (0.8, 0.9, 1.0)) == pytest.approx(0.1 / 3 ** 0.5 / 0.8)
    few, many = (ProbeTable(*(np.full(num, 0.9),) * 3) for num in (4, 16))
    assert few.unseen_error(1.0) == pytest.approx(2 * many.unseen_error(1.0)) and few.unseen_error(0.0) == 0


def test_a_covered_face_leaves_the_rest_of_the_image():
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    covered = without_faces(images, [torch.tensor([[10.0, 10.0, 20.0, 20.0]]), torch.zeros(0, 4)])
    assert covered[0, :, 10:20, 10:20].unique().tolist() == [0.5]
    assert torch.equal(covered[0, :, :5], images[0, :, :5]) and torch.equal(covered[1], images[1])


def test_perceptual_vectors_give_the_backbones_own_distance():
    perceptual = load_backends(SCORING).perceptual
    a, b = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = squared_distances(perceptual.vectors(a), perceptual.vectors(b)).diagonal()
    with torch.no_grad():
        torch.testing.assert_close(ours, perceptual.model.lpips_distance(a, b), rtol=1e-4, atol=1e-5)


def test_memorisation_is_none_at_unseen_photos_and_full_at_copies():
    unseen = [1.1, 1.3]
    assert normalised_gap(memo_gap([1.2, 1.2], unseen), unseen) == pytest.approx(0)
    assert memorisation(0.0, normalised_gap(memo_gap([0.0, 0.0], unseen), unseen), 0.0, 0.25) == 1
    assert memorisation(0.125, -0.3, float("nan"), 0.25) == 0.5
    assert memorisation(0.0, -0.3, 0.7, 0.25) == 0.7


def test_diversity_falls_with_planted_repetition():
    images_BP = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    repeated = images_BP[[0, 0, 1, 1]]
    same = images_BP[[0, 0, 0, 0]]
    values = [mean_pairwise_distance(squared_distances(x, x)) for x in (images_BP, repeated, same)]
    assert values[0] > values[1] > values[2] == pytest.approx(0, abs=1e-4)
    assert mean_pairwise_distance(torch.zeros(1, 1)) is None


def test_burn_rises_with_planted_contrast_and_not_with_another_scene():
    images = F.interpolate(torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25, 64)
    limits = {"clipped": 1.0, "saturation": 0.4, "contrast": 0.4, "sharpness": 0.5}

    def burnt(factor):
        hot = ((images - 0.5) * factor + 0.5).clamp(0, 1)
        return burn([log_ratios(a, b) for a, b in zip(looks(hot), looks(images), strict=True)], limits)

    values = [burnt(f) for f in (1.0, 1.3, 1.8, 3.0)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0) and values[-1] > 1
    assert burn([log_ratios(a, b) for a, b in zip(looks(images[:3]), looks(images[3:]), strict=True)], limits) < 0.3
