"""Hydra's own keys are checked with the rest, in a dry run too, and not when the run begins."""

import pytest
from helpers.command_lines import errors_of, only_error
from helpers.run_configs import TINY

from diffq_exp import train
from diffq_exp.command.check import check


@pytest.mark.parametrize("key", ["job.chdir", "hydra_logging.version", "verbose", "output_subdir", "job.name"])
@pytest.mark.parametrize("multirun", [[], ["-m", "seed=0,1"]])
def test_what_does_not_resolve(key, multirun):
    assert only_error(*multirun, f"hydra.{key}=${{nope}}").startswith(f"hydra.{key}: ")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hydra.verbose=5", "hydra.verbose=5: true, false or names of loggers are allowed"),
        ("+hydra.callbacks.a=3", "hydra.callbacks.a._target_=null: package.Class is allowed"),
        ("+hydra.callbacks.a._target_=foo.Bar", "hydra.callbacks.a._target_=foo.Bar: no package or module 'foo'"),
        ("+hydra.job.env_copy=[OF_NOBODY]", "hydra.job.env_copy: the environment has no OF_NOBODY"),
    ],
)
def test_what_would_not_start(word, says):
    assert only_error(word).startswith(says)


def test_what_would_start():
    words = ["hydra.verbose=[diffq_exp]", "+hydra.callbacks.a._target_=pathlib.Path", "+hydra.job.env_copy=[PATH]"]
    assert errors_of(*words) == []


def test_a_folder_of_its_own_has_no_relative_paths(tmp_path, monkeypatch):
    """The signature of the run would be that of a file which is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").write_bytes(b"PK")
    chdir = "hydra.job.chdir=true"
    (error,) = check([chdir, "init_from=net.pt"]).errors
    assert error.startswith("init_from=net.pt: hydra.job.chdir=true has the run in a folder of its own")
    assert check([chdir, f"init_from={tmp_path}/net.pt"]).errors == check([chdir]).errors == []
    assert check(["init_from=net.pt"]).errors == []


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["hydra.hydra_logging.version=7"], "hydra.hydra_logging, hydra.callbacks"),
        (["hydra/job_logging=default", "hydra.job_logging.version=7"], "hydra.job, hydra.job_logging"),
        (["+hydra.callbacks.a={_target_:fractions.Fraction,numerator:x}"], "hydra.hydra_logging, hydra.callbacks"),
    ],
)
def test_what_only_a_start_can_tell_is_one_line(words, keys, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {keys}: ") and err.count("\n") == 1
    assert not [*tmp_path.rglob("result.json")]
