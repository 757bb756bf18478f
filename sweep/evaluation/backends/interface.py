"""What scores ask of the models that look at images. One conformance suite runs against every member.

Images are [0, 1], NCHW, on the CPU, of any size; so are all answers. A backend is frozen and deterministic: the same
image gives the same answer, alone or in a batch (up to rounding), and companions change nothing.
Shapes: B images, F faces of one image, D width of an embedding, P width of a vector, T texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one image, the largest first.

    boxes_F4: x0, y0, x1, y1 in pixels of the given image. embeddings_FD: of unit norm.
    """

    boxes_F4: Tensor
    embeddings_FD: Tensor

    def __len__(self) -> int:
        return len(self.boxes_F4)


class FaceBackend(Protocol):
    """Finds faces and says whose they are: embeddings of one person are near each other (cosine)."""

    SAME_FACE: ClassVar[float]
    """From this cosine on two faces are of one person."""

    def faces(self, images_BCHW: Tensor) -> list[Faces]:
        """Of each image; none where there is no face, or none that the backend is sure of."""
        ...


class ImageBackend(Protocol):
    """Embeds whole images: alike ones are near each other (cosine)."""

    def image_features(self, images_BCHW: Tensor) -> Tensor:
        """Of unit norm, [B, D]."""
        ...


class PromptBackend(ImageBackend, Protocol):
    """Embeds images and texts in one space."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Of unit norm, [T, D]."""
        ...

    @property
    def logit_scale(self) -> float:
        """The learned inverse temperature of a softmax over cosines."""
        ...


class VectorBackend(Protocol):
    """Turns images into vectors whose squared Euclidean distance says how unlike two of them are; 0 = equal."""

    def vectors(self, images_BCHW: Tensor) -> Tensor:
        """[B, P]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """One member for each role. identities: hash of each one's files and settings, by role."""

    face: FaceBackend | None  # None: the subject has no face
    subject: ImageBackend | None  # likeness of what has no face
    prompt: PromptBackend
    perceptual: VectorBackend  # diversity
    copies: VectorBackend
    identities: Mapping[str, str]


def squared_distances(a_AP: Tensor, b_BP: Tensor) -> Tensor:
    """Of all pairs, [A, B]."""
    squares = a_AP.square().sum(1, keepdim=True) + b_BP.square().sum(1) - 2 * a_AP @ b_BP.T
    return squares.clamp(min=0)
