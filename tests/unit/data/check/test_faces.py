"""Real faces through dlib, where it is installed: a public-domain portrait that scikit-image brings."""

from pathlib import Path

import pytest
from PIL import Image

from sweep.data.check.faces import face_findings, face_reader
from sweep.data.folder import Photo

pytest.importorskip("dlib")


@pytest.fixture
def portrait() -> Image.Image:
    from skimage.data import astronaut

    return Image.fromarray(astronaut())


def photo(path: Path, image: Image.Image) -> Photo:
    image.save(path)
    return Photo(path=path, caption="", repeats=1, subset="", sha256="", size=image.size)


def test_one_none_several_and_small(tmp_path: Path, portrait: Image.Image) -> None:
    reader = face_reader("sd15")
    if reader is None:
        pytest.skip("the models of face_recognition_models are not installed")
    both = Image.new("RGB", (1024, 512))
    both.paste(portrait, (0, 0))
    both.paste(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    far = Image.new("RGB", (1024, 1024), "grey")
    far.paste(portrait.resize((384, 384)), (300, 300))
    images = {"one": portrait, "none": Image.new("RGB", (256, 256), "white"), "several": both, "small": far,
              "turned": portrait.rotate(8), "bright": portrait.point(lambda value: min(255, value * 1.2))}
    found = {f.kind: f.photos for f in face_findings([photo(tmp_path / f"{name}.png", image)
                                                      for name, image in images.items()], reader)}
    assert found["no_face"] == ("none.png",)
    assert found["several_faces"] == ("several.png",)
    assert found["small_face"] == ("small.png",)
    assert "stranger" not in found and "mixed_faces" not in found
