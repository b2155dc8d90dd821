"""Two finished runs for all modules, and a commit that stays the same."""

import pytest
from helpers.run_configs import TINY, do
from helpers.run_folders import COMMIT

from diffq_exp.runs import machine


@pytest.fixture(scope="module")
def same_commit():
    """The checkout may get a commit while these tests run; and asking git takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "git_state", lambda: (COMMIT, False))
        yield


@pytest.fixture(scope="module")
def finished(same_commit, tmp_path_factory):
    """A run of the default quantizer; to be looked at, not changed."""
    return do(*TINY, root=tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def floats(same_commit, tmp_path_factory):
    """A run of the float32 network."""
    return do(*TINY, "quantizer=none", root=tmp_path_factory.mktemp("floats"))
