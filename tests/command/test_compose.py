"""YAML files of the user's that cannot be read: one line with the file, for a run and for a sweep."""

import pytest

from diffq_exp.command.check import check


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"epochs: ${nope", "epochs: no viable alternative"),
        (b"epochs: 1\nlr: [1", "line 2: expected"),
        (b"epochs: !!foo 1", "line 1: could not determine a constructor"),
        (b"epochs: 1\nepochs: 2", "line 2: found duplicate key epochs"),
        (b"# caf\xe9\nepochs: 1", "'utf-8' codec"),
        (b"epochs: \0", "unacceptable character"),
    ],
)
@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"]])
def test_a_file_that_cannot_be_read_is_named(text, says, words, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_bytes(text)
    (error,) = check([*words, "--config-dir", str(tmp_path), "experiment=mine"]).errors
    assert error.startswith(f"{tmp_path}/experiment/mine.yaml: {says}") and "\n" not in error
