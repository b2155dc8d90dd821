"""What a process does with files, as the script of kill points sees it."""

import sys

from file_operations import Operations


def test_one_hook_serves_all(tmp_path, monkeypatch):
    """Python keeps each hook to the end of the process, and calls it at every event."""
    with Operations(tmp_path):
        pass  # the hook of this process is there now
    added = []
    monkeypatch.setattr(sys, "addaudithook", added.append)
    for _ in range(3):
        with Operations(tmp_path) as seen, Operations(tmp_path / "below"):
            (tmp_path / "a").write_text("")
        (tmp_path / "b").write_text("")
        assert seen.seen == ["open a"]
    assert not added
