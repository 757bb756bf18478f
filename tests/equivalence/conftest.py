"""What the equivalence tests train on and with; kept from test to test of a module."""

from pathlib import Path

import pytest

from sweep.worker.process import Worker
from tests.conftest import make_photos
from tests.equivalence.photos import make_project


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four plain photos."""
    return make_photos(tmp_path_factory.mktemp("photos"), num_photos=4)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with everything that data can be."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def worker() -> Worker:
    """Keeps the base loaded."""
    return Worker()
