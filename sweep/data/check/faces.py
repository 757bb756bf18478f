"""Whose faces are on the photos: none, several, too small, a stranger's.

Photos of the pocket world are read by its own recogniser, which finds one face a picture; others by dlib where it is
installed. Shapes: F faces of a photo, D width of an embedding, N photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweep.data.check.findings import EVERYTHING, QUALITY, TUTORIAL, VARIETY, Finding
from sweep.data.dataset import Photo
from sweep.data.dlib_models import INSTALL, SAME_PERSON, FaceRecogniser, usable_folder
from sweep.data.images import open_upright
from sweep.model.base import EMBEDDED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

WORKING_SIDE = 1024  # pixels of the longer side
SMALL_FRAC = 0.12  # of the picture's height
CLOSE_FRAC = 0.4  # a face of this height and more is a close-up
FEWEST = 4  # faces that it takes to say whose they are


@dataclass(frozen=True, slots=True)
class Face:
    """height_frac: of the picture's. embedding: at unit norm."""

    height_frac: float
    embedding: NDArray[np.float64]


class FaceReader(Protocol):
    """Finds faces and tells people apart. name: for the report."""

    name: str
    same_person: float  # cosine from which on two faces are called one person's

    def faces(self, image: Image) -> list[Face]:
        """The largest first."""


class PocketFaces:
    """The pocket world's recogniser. Measured on eight of its people, 25 photos each: the median cosine of a photo to
    the others of its person is 0.82 to 0.97, to another person's -0.43 to 0.67."""

    name, same_person = "the pocket base's recogniser", 0.74
    _MIN_CONFIDENCE = 0.5

    def __init__(self) -> None:
        from sweep.pocket.models import load_face

        self._recogniser = load_face()

    def faces(self, image: Image) -> list[Face]:
        import numpy as np
        import torch

        pixels_BCHW = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()[None] / 255
        with torch.no_grad():
            box_B4, confidence_B = self._recogniser.locate(pixels_BCHW)
            embedding_BD = self._recogniser.embed_crops(self._recogniser.crop(pixels_BCHW, box_B4))
        if float(confidence_B) < self._MIN_CONFIDENCE:
            return []
        height = float(box_B4[0, 3] - box_B4[0, 1]) / image.height
        return [Face(height, embedding_BD[0].double().numpy())]


class DlibFaces:
    """Of photographs."""

    name, same_person = "dlib", SAME_PERSON
    _MIN_CONFIDENCE = 0.4  # a shoulder patch of an ordinary portrait reaches 0.33

    def __init__(self, folder: Path) -> None:
        self._recogniser = FaceRecogniser(folder)

    def faces(self, image: Image) -> list[Face]:
        import numpy as np

        image = image.copy()
        image.thumbnail((WORKING_SIDE, WORKING_SIDE))
        found = [Face(box.height() / image.height, vector / np.linalg.norm(vector))
                 for box, vector in self._recogniser.found(np.asarray(image), self._MIN_CONFIDENCE)]
        return sorted(found, key=lambda face: -face.height_frac)


def face_reader(base_name: str) -> FaceReader | None:
    """Who can read the faces of this base's photos; None if nobody is installed."""
    if base_name in EMBEDDED:
        return PocketFaces()
    folder = usable_folder()
    return None if folder is None else DlibFaces(folder)


def not_looked_at() -> Finding:
    return Finding(kind="faces_unread", topic="faces", level="note",
                   text="faces were not looked at: whether each photo has one, whose, and how large. That needs dlib: "
                        f"{INSTALL}.")


def face_findings(photos: Sequence[Photo], reader: FaceReader) -> list[Finding]:
    """Of photos of a person."""
    faces = {photo.path.name: reader.faces(open_upright(photo.path)) for photo in photos}
    found = []
    none = tuple(name for name, those in faces.items() if not those)
    if none:
        found.append(Finding(
            kind="no_face", topic="faces", level="advice", advice=TUTORIAL, photos=none,
            text=f"no face found on {len(none)} photos (turned away, hidden or small): the likeness is not in them."))
    several = tuple(name for name, those in faces.items() if len(those) > 1)
    if several:
        found.append(Finding(
            kind="several_faces", topic="faces", level="problem", advice=TUTORIAL, photos=several,
            text=f"{len(several)} photos show more than one face: crop them so that the subject is alone."))
    small = tuple(name for name, those in faces.items() if those and those[0].height_frac < SMALL_FRAC)
    if small:
        found.append(Finding(
            kind="small_face", topic="faces", level="advice", advice=TUTORIAL, photos=small,
            text=f"on {len(small)} photos the face is less than {SMALL_FRAC:.0%} of the height: crop closer, there is "
                 "not much to learn from far away."))
    first = {name: those[0] for name, those in faces.items() if those}
    return [*found, *_strangers(first, reader), *_framing(first)]


def _strangers(faces: dict[str, Face], reader: FaceReader) -> list[Finding]:
    """Photos whose face is unlike the others'. The median holds while fewer than half are strangers."""
    import numpy as np

    if len(faces) < FEWEST:
        return []
    embeddings_ND = np.stack([face.embedding for face in faces.values()])
    cosines_NN = embeddings_ND @ embeddings_ND.T
    others = [np.median(np.delete(row, i)) for i, row in enumerate(cosines_NN)]
    strange = tuple(name for name, value in zip(faces, others, strict=True) if value < reader.same_person)
    if not strange:
        return []
    if 2 * len(strange) > len(faces):
        return [Finding(kind="mixed_faces", topic="faces", level="problem", advice=QUALITY,
                        text=f"{len(strange)} of {len(faces)} faces are unlike most of the others, says {reader.name}: "
                             "either several people are on these photos, or it can't tell these faces.")]
    return [Finding(kind="stranger", topic="faces", level="problem", advice=QUALITY, photos=strange,
                    text=f"the face on {len(strange)} photos is unlike the others (similarity {min(others):.2f}, one "
                         f"person's have {reader.same_person:.2f} and more, says {reader.name}): is it the subject?")]


def _framing(faces: dict[str, Face]) -> list[Finding]:
    """Close-ups and wider pictures should both be there."""
    if len(faces) < FEWEST:
        return []
    num_close = sum(face.height_frac >= CLOSE_FRAC for face in faces.values())
    share = num_close / len(faces)
    if 0.1 <= share <= 0.9:
        return []
    what, more = ("close-ups", "pictures with more of the body") if share > 0.9 else ("pictures from further away",
                                                                                       "close-ups")
    return [Finding(kind="same_framing", topic="faces", level="advice", advice=VARIETY if share > 0.9 else EVERYTHING,
                    text=f"nearly all photos are {what}: add {more}, or the subject will be good at that distance "
                         "only.")]
