"""Bases of the pocket world have its recogniser, whatever else is installed."""

import pytest

from sweep.data.check.faces import PocketFaces, face_reader
from sweep.model.base import EMBEDDED


@pytest.mark.parametrize("base", EMBEDDED)
def test_faces_of_renders_are_read_by_the_worlds_own_recogniser(base: str) -> None:
    assert isinstance(face_reader(base), PocketFaces)
