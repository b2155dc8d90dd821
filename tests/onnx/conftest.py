"""Files for the tests of this folder."""

import pytest
from helpers.storage_models import good_file

from diffq_exp.onnx import trace


@pytest.fixture(scope="session", params=["auto", "packed"])
def good(request) -> bytes:
    """A network with tensors of both kinds, by each coding; see `good_file`."""
    return good_file(request.param)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def by_script(monkeypatch):
    """The older exporter, which is much quicker, where the exporter is not the subject."""
    monkeypatch.setattr(trace, "EXPORTERS", {"TorchScript": trace._by_script})
