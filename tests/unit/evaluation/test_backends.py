"""The conformance suite: what every model that looks at images must keep, whatever its weights."""


import importlib.util

import pytest
import torch
import yaml

from sweep.errors import ModelError, ScoringError
from sweep.evaluation.backends.interface import squared_distances
from sweep.evaluation.backends.registry import backend_identities, load_backends, what_is_missing
from sweep.evaluation.settings import ROLES, ScoringConfig
from sweep.pocket.subject import subject_shots
from sweep.pocket.world import held_out_people
from sweep.schema import build
from tests.unit.evaluation import small_models
from tests.unit.evaluation.evaluation_examples import ROOT, TREE

REAL = yaml.safe_load((ROOT / "conf" / "scoring" / "shared" / "real.yaml").read_text())
NONE = {"name": "none", "path": None, "sha256": None, "download": False}
MEMBERS = [(role, name) for role, names in ROLES.items() for name in names if name != "none"]
PACKAGES = {"dlib": ("dlib", "face_recognition_models"), "insightface": ("insightface", "onnxruntime", "onnx")}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Where each member's weights lie; made on first use."""
    folder = tmp_path_factory.mktemp("backends")
    writers = {"clip": small_models.write_clip, "siglip": small_models.write_siglip, "dino": small_models.write_dino,
               "dino_lpips": small_models.write_dino, "sscd": small_models.write_sscd,
               "lpips": small_models.write_alexnet, "insightface": small_models.write_insightface}

    def path_of(name):
        if name not in writers:
            return None
        path = folder / name
        return str(path if path.exists() else writers[name](path))

    return path_of


def configured(role, name, path, *, face_confidence=None, **changes):
    """The pocket's scoring with another member in one role, a face recogniser for photographs at their confidence."""
    backends = {**TREE["backends"], role: {"name": name, "path": path, "sha256": None, "download": False, **changes}}
    if role == "subject":
        backends["face"] = NONE
    if face_confidence is None:
        face_confidence = (REAL if name in ("dlib", "insightface") else TREE)["face_confidence"]
    return build(ScoringConfig, {**TREE, "backends": backends, "face_confidence": face_confidence}, "scoring")


def needs(package: str) -> None:
    """Found, not imported: face_recognition_models can't be imported beside a new setuptools, and needs not be."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="session")
def member(weights):
    loaded = {}

    def get(role, name):
        for package in PACKAGES.get(name, ()):
            needs(package)
        if (role, name) not in loaded:
            loaded[role, name] = getattr(load_backends(configured(role, name, weights(name))), role)
        return loaded[role, name]

    return get


@pytest.fixture(scope="session")
def people():
    """Renders: three of one person, two of another."""
    from sweep.pocket.render import render

    shots = subject_shots(31, 6)[0][torch.tensor([0, 1, 2, 4, 5])]
    return render(held_out_people()[torch.tensor([31, 31, 31, 92, 92])], shots).images_BCHW


def astronaut():
    """A real photograph, 512 pixels, public domain (NASA); in scikit-image's wheel."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float()[None] / 255


def red_faces(*places, side=160):
    """What the small detector finds: red squares, with a different drawing on each."""
    image = torch.full((1, 3, side, side), 0.3)
    for number, (x, y) in enumerate(places):
        square = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 28, 28).clone()
        square[:, 4 * number:4 * number + 4] = torch.tensor([0.9, 0.2, 0.2])[:, None, None]
        image[0, :, y:y + 28, x:x + 28] = square
    return image


def with_faces(name, people):
    """Images with one face each, of the kind that this member knows; all of one size."""
    if name == "pocket":
        return people
    if name == "insightface":
        return torch.cat([red_faces((20, 20)), red_faces((90, 60)), red_faces((60, 100))])
    photo = astronaut()
    return torch.cat([photo, photo.flip(3), photo * 0.9])


def outputs(role, backend, images):
    """One row per image."""
    if role == "face":
        return torch.stack([faces.embeddings_FD[0] for faces in backend.faces(images)])
    return backend.vectors(images) if role in ("perceptual", "copies") else backend.image_features(images)


@pytest.mark.parametrize(("role", "name"), MEMBERS)
def test_same_input_same_answer_alone_and_in_a_batch_at_unit_norm(role, name, member, people):
    backend, images = member(role, name), with_faces(name if role == "face" else "pocket", people)
    together = outputs(role, backend, images)
    torch.testing.assert_close(outputs(role, backend, images), together, rtol=0, atol=0)
    alone = torch.cat([outputs(role, backend, images[i:i + 1]) for i in range(len(images))])
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-3)
    turned = outputs(role, backend, images.flip(0)).flip(0)
    torch.testing.assert_close(turned, together, atol=1e-4, rtol=1e-3)
    assert bool(torch.isfinite(together).all()) and not together.requires_grad
    if role in ("face", "prompt", "subject"):
        torch.testing.assert_close(together.norm(dim=1), torch.ones(len(images)), atol=1e-4, rtol=0)
    else:
        distances = squared_distances(together, together)
        assert float(distances.diagonal().abs().max()) < 1e-4 < float(distances[0, 1:].min())


@pytest.mark.parametrize(("role", "name"), MEMBERS)
def test_flat_grey_images_and_other_sizes_are_no_trouble(role, name, member, people):
    backend = member(role, name)
    for images in (torch.full((2, 3, 64, 64), 0.5), torch.rand(1, 3, 96, 80), torch.zeros(1, 3, 128, 128)):
        if role == "face":
            assert all(len(faces) == len(faces.boxes_F4) == len(faces.embeddings_FD) for faces in backend.faces(images))
        else:
            assert bool(torch.isfinite(outputs(role, backend, images)).all())
    if role == "face":
        assert [len(faces) for faces in backend.faces(torch.full((2, 3, 64, 64), 0.5))] == [0, 0], "no face"


@pytest.mark.parametrize("name", ["pocket", "dlib", "insightface"])
def test_a_greyscale_or_mirrored_face_is_found_where_it_is(name, member, people):
    backend, images = member("face", name), with_faces(name, people)
    boxes = torch.cat([faces.boxes_F4[:1] for faces in backend.faces(images)])
    size = images.shape[-1]
    assert bool((boxes[:, 2:] > boxes[:, :2]).all())
    mirrored = torch.cat([faces.boxes_F4[:1] for faces in backend.faces(images.flip(3))])
    mirrored[:, [0, 2]] = size - mirrored[:, [2, 0]]
    tolerance = 0.25 if name == "insightface" else 0.09  # the small detector sees in steps of a twentieth
    torch.testing.assert_close(mirrored, boxes, atol=tolerance * size, rtol=0)
    if name != "insightface":  # the small detector looks for red
        grey = images.mean(dim=1, keepdim=True).expand_as(images)
        assert all(len(faces) == 1 for faces in backend.faces(grey))


@pytest.mark.parametrize("name", ["dlib", "insightface"])
def test_several_faces_come_largest_first(name, member):
    backend = member("face", name)
    if name == "insightface":
        image = red_faces((10, 10), (100, 100))
        expected = 2
    else:
        photo = astronaut()
        face, side = photo[:, :, 40:220, 130:310], 360
        image = torch.full((1, 3, side, 2 * side), 0.4)
        image[:, :, :, :side] = torch.nn.functional.interpolate(face, (side, side), mode="bilinear")
        image[:, :, 90:270, 450:630] = face
        expected = 2
    [faces] = backend.faces(image)
    assert len(faces) == expected
    areas = (faces.boxes_F4[:, 2:] - faces.boxes_F4[:, :2]).prod(dim=1)
    assert areas.tolist() == sorted(areas.tolist(), reverse=True)


def test_dlib_on_a_real_photograph(member):
    """Found and embedded; crops and flips are near, other faces far."""
    backend, photo = member("face", "dlib"), astronaut()
    [faces] = backend.faces(photo)
    assert len(faces) == 1
    x0, y0, x1, y1 = faces.boxes_F4[0].tolist()
    assert 150 < x0 < 200 and 60 < y0 < 100 and 240 < x1 < 290 and 140 < y1 < 190
    me = faces.embeddings_FD[0]
    views = [photo.flip(3), photo[:, :, :300, 120:420], photo * 0.8, photo[:, :, 20:260, 100:340]]
    near = [float(me @ backend.faces(view)[0].embeddings_FD[0]) for view in views]
    faces_of_others = torch.from_numpy(pytest.importorskip("skimage.data").lfw_subset()[:100].copy()).float()
    others = torch.nn.functional.interpolate(faces_of_others[:, None].expand(-1, 3, -1, -1), 200, mode="bicubic")
    framed = torch.nn.functional.pad(others.clamp(0, 1), (60, 60, 60, 60), mode="replicate")
    far = [float(me @ found.embeddings_FD[0]) for found in backend.faces(framed) if len(found)]
    assert len(far) >= 3
    assert min(near) > 0.95 > 0.93 > max(far)


def test_the_face_that_dlib_sees_on_the_suit_is_not_kept():
    """Its detector gives it .117, where the shipped confidence is .25."""
    for package in PACKAGES["dlib"]:
        needs(package)
    import dlib

    from sweep.data.dlib_models import UPSAMPLE
    from sweep.evaluation.backends.faces import pixels_of

    photo = astronaut()
    _, confidences, _ = dlib.get_frontal_face_detector().run(pixels_of(photo[0]), UPSAMPLE, 0.1)
    assert min(confidences) == pytest.approx(0.117, abs=0.002) and REAL["face_confidence"] == 0.25
    unsure, shipped = (load_backends(configured("face", "dlib", None, face_confidence=confidence)).face.faces(photo)[0]
                       for confidence in (0.1, REAL["face_confidence"]))
    assert [len(unsure), len(shipped)] == [2, 1]
    suit = next(box for box in unsure.boxes_F4 if not torch.equal(box, shipped.boxes_F4[0]))
    assert float(suit[1]) > float(shipped.boxes_F4[0, 3]), "beneath the face"


def test_lpips_vectors_give_the_packages_own_distance(member, people):
    backend = member("perceptual", "lpips")
    images = torch.nn.functional.interpolate(people, 128, mode="nearest")
    with torch.no_grad():
        theirs = backend.model(images[:1].expand(4, -1, -1, -1), images[1:], normalize=True).flatten()
    vectors = backend.vectors(images)
    torch.testing.assert_close(squared_distances(vectors[:1], vectors[1:])[0], theirs, rtol=1e-3, atol=1e-5)


def test_clip_through_transformers_equals_the_pockets_own_reading(member, people):
    ours, theirs = member("prompt", "pocket"), member("prompt", "clip")
    torch.testing.assert_close(theirs.image_features(people), ours.image_features(people), atol=5e-3, rtol=0)
    texts = ["photo of a man with red hair", "a beach"]
    torch.testing.assert_close(theirs.text_features(texts), ours.text_features(texts), atol=1e-4, rtol=0)
    assert theirs.logit_scale == pytest.approx(ours.logit_scale)


@pytest.mark.parametrize("name", ["pocket", "clip", "siglip"])
def test_texts_have_features_of_their_own(name, member):
    backend = member("prompt", name)
    features = backend.text_features(["photo of a man with red hair", "photo of a man with blue hair"])
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    alone = backend.text_features(["photo of a man with blue hair"])[0]
    torch.testing.assert_close(alone, features[1], atol=1e-4, rtol=0)
    assert float(features[0] @ features[1]) < 1 - 1e-6 and backend.logit_scale > 0


@pytest.mark.parametrize(("role", "name"), [m for m in MEMBERS if m[1] != "perceptual"])  # the same again
def test_a_wrong_hash_is_named(role, name, weights):
    for package in PACKAGES.get(name, ()):
        needs(package)
    with pytest.raises(ModelError, match=r"is not the file that scoring.backends.\w+.sha256 asks for: its SHA-256 is"):
        backend_identities(configured(role, name, weights(name), sha256="00" * 32))


@pytest.mark.parametrize(("role", "name", "words"), [
    ("prompt", "clip", "it has no config.json"), ("subject", "dino", "it has no config.json"),
    ("face", "insightface", r"holds 0 .onnx files"), ("copies", "sscd", "lacks"), ("perceptual", "lpips", "lacks"),
    ("face", "dlib", "lacks .*shape_predictor_5_face_landmarks.dat"), ("face", "pocket", "lacks .*face.safetensors")])
def test_an_empty_folder_is_named(role, name, words, tmp_path):
    for package in PACKAGES.get(name, ()):
        needs(package)
    path = tmp_path if name not in ("sscd", "lpips") else tmp_path / "missing.pt"
    with pytest.raises(ModelError, match=words):
        load_backends(configured(role, name, str(path)))


@pytest.mark.parametrize(("role", "name", "words"), [
    ("copies", "sscd", "can't be read as TorchScript"), ("perceptual", "lpips", "is not torchvision's AlexNet"),
    ("face", "insightface", "can't be read as ONNX|holds no model"), ("prompt", "clip", "can't be loaded|kind")])
def test_a_wrong_file_is_named(role, name, words, weights, tmp_path):
    for package in PACKAGES.get(name, ()):
        needs(package)
    if name in ("sscd", "lpips"):
        path = tmp_path / "other.pt"
        path.write_bytes(b"nonsense")
    elif name == "clip":
        path = weights("dino")
    else:
        path = tmp_path
        for part in ("a.onnx", "b.onnx"):
            (tmp_path / part).write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=words):
        load_backends(configured(role, name, str(path)))


def test_a_download_that_is_damaged_is_told_by_its_name(tmp_path):
    path = tmp_path / "alexnet-owt-7be5be79.pth"
    path.write_bytes(b"half a download")
    with pytest.raises(ModelError, match="is damaged: its SHA-256 begins with"):
        backend_identities(configured("perceptual", "lpips", str(path)))


def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for role, name, path, words in (("perceptual", "lpips", None, "download.pytorch.org"),
                                    ("copies", "sscd", None, "facebookresearch/sscd"),
                                    ("prompt", "clip", "nobody/nothing", "hf download nobody/nothing"),
                                    ("face", "insightface", None, "non-commercial research only")):
        if name == "insightface":
            pytest.importorskip("insightface")
        with pytest.raises(ModelError, match=words):
            backend_identities(configured(role, name, path))


def test_what_two_roles_lack_is_named_once_and_what_each_lacks_each_time(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def missing(**roles):
        backends = {**TREE["backends"], "face": NONE}
        backends |= {role: {**NONE, "name": name, "path": path} for role, (name, path) in roles.items()}
        return what_is_missing(build(ScoringConfig, {**TREE, "backends": backends}, "scoring"))

    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "model.safetensors").touch()
    [lacking] = missing(prompt=("clip", str(folder)), subject=("clip", str(folder)))
    assert "prompt=clip lacks" in lacking or "subject=clip lacks" in lacking
    [unknown] = missing(subject=("dino", "nobody/nothing"), copies=("dino_lpips", "nobody/nothing"))
    assert "hf download nobody/nothing" in unknown
    assert len(missing(prompt=("clip", None), subject=("clip", None))) == 2, "two settings to make"
    nowhere = str(tmp_path / "none")
    roles = dict.fromkeys(("prompt", "subject", "perceptual"), ("pocket", nowhere))
    assert len(missing(**roles)) == 2, "prompt and subject are one CLIP"
    both = missing(subject=("pocket", None), copies=("dino_lpips", "nobody/nothing"), perceptual=("pocket", nowhere))
    assert len(both) == 2, "of what is made of two models, both are named"


def test_identities_follow_the_files(tmp_path, weights):
    one = backend_identities(configured("copies", "sscd", weights("sscd")))
    assert one == backend_identities(configured("copies", "sscd", weights("sscd")))
    torch.manual_seed(1)
    other = tmp_path / "other.pt"
    torch.jit.script(torch.nn.Flatten()).save(str(other))
    changed = backend_identities(configured("copies", "sscd", str(other)))
    assert changed["copies"] != one["copies"] and changed["face"] == one["face"]


def test_roles_that_cannot_work_together_are_refused():
    with pytest.raises(ScoringError, match='Did you mean "dlib"'):
        configured("face", "dlibb", None)
    with pytest.raises(ScoringError, match="on faces or on whole images"):
        configured("face", "none", None)


def test_the_pockets_recogniser_tells_people_apart(member, people):
    faces = torch.stack([found.embeddings_FD[0] for found in member("face", "pocket").faces(people)])
    cosines = faces @ faces.T
    assert float(cosines[0, 1]) > 0.7 > float(cosines[0, 3]) and float(cosines[3, 4]) > 0.7

