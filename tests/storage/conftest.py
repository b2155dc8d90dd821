"""Files for the tests of this folder."""

import pytest
from helpers.storage_models import as_version2, good_file


@pytest.fixture(scope="session", params=["auto", "packed"])
def good(request) -> bytes:
    """A network with tensors of both kinds, by each coding; see `good_file`."""
    return good_file(request.param)


@pytest.fixture(scope="session")
def coded() -> bytes:
    """`good` with coding "auto"."""
    return good_file("auto")


@pytest.fixture(scope="session")
def old(coded) -> bytes:
    """`coded` as a file of format 2."""
    return as_version2(coded)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"
