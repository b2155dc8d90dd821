"""Files for the tests of this folder."""

import pytest
from helpers.storage_models import good_file


@pytest.fixture(scope="session", params=["auto", "packed"])
def good(request) -> bytes:
    """A network with tensors of both kinds, by each coding; see `good_file`."""
    return good_file(request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"
