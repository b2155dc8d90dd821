"""What can be stored where, and what is refused in one clear line: configurations, other groups, devices."""

import os

import pytest
from helpers.storage_models import assert_same, diffq, network, snapshot

from diffq_exp import storage


def test_a_state_of_other_groups_leaves_the_network_untouched(tmp_path):
    """Its bits would not fit the logits; that is seen before the first weight is written."""
    source, other = network(), network(seed=1)
    storage.save(diffq(source, group_size=8), tmp_path / "m.safetensors")
    diffq(other, group_size=4)
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"groups of 8.*groups of 4"):
        storage.load(tmp_path / "m.safetensors", other)
    assert_same(snapshot(other), before)


@pytest.mark.parametrize(
    "config", [{"history": [0.0] * 30_000}, {"log": "a" * 2_000_000}, {"deep": [[[]] * 9] * 9_000}]
)
def test_a_long_configuration_is_read_back(config, tmp_path):
    storage.save(network(), tmp_path / "m.safetensors", config)
    assert storage.read(tmp_path / "m.safetensors")[1] == config


@pytest.mark.parametrize("config", [[1], "text", {"a": object()}, {1j: 2}])
def test_a_configuration_that_is_no_json_is_refused(config, tmp_path):
    with pytest.raises((TypeError, ValueError), match="configuration"):
        storage.save(network(), tmp_path / "m.safetensors", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [None, "m.safetensors", {}])
def test_what_is_no_network_is_refused_by_its_type(source, tmp_path):
    with pytest.raises(TypeError, match=type(source).__name__):
        storage.save(source, tmp_path / "m.safetensors")
    storage.save(network(), tmp_path / "n.safetensors")
    with pytest.raises(TypeError, match=type(source).__name__):
        storage.load(tmp_path / "n.safetensors", source)


def test_a_link_is_followed_and_a_device_is_left_alone(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    storage.save(network(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "old").read_bytes() != b"old"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file that can be replaced"):
        storage.save(network(), tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
