"""Paths of the user's: any characters, typed as they are, in any locale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_lines import errors_of
from omegaconf import OmegaConf

from diffq_exp import search, train
from diffq_exp.command.check import check
from diffq_exp.command.overrides import parse
from diffq_exp.command.paths import with_path_quoted
from diffq_exp.command.ranges import PATHS
from diffq_exp.command.schema import conf_dir

CHARACTERS = [*"ä中()[]{}#,='\"`$%&!;~^<>|*?@:+\\ \t", "\\'"]
QUIET = ["tracking=none", "device=cpu"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def value_of(text):
    return parse(with_path_quoted(text)).value()


@pytest.mark.parametrize("key", ["init_from", "+dataset.root", "hydra.run.dir"])
def test_a_path_is_read_as_it_is_typed(key):
    for characters in CHARACTERS:
        name = f"a{characters}b"
        if "," not in name:  # several values, unless there is such a file
            assert value_of(f"{key}={name}") == name
        for there in (characters, name):
            Path(there).mkdir()
            assert value_of(f"{key}={there}") == there


@pytest.mark.parametrize("name", ["007", "1e3", "true", "12"])
def test_a_path_that_looks_like_a_number(name):
    assert value_of(f"hydra.run.dir={name}") == name


def test_what_is_no_path_is_left_to_the_grammar():
    Path("1").touch()
    Path("a(b").touch()
    for text in (
        "seed=1",
        "init_from=null",
        "hydra.run.dir=out/${seed}",
        "init_from='a b'",
        "init_from=x,y",
        "~seed",
    ):
        assert with_path_quoted(text) == text
    assert (
        with_path_quoted("+model.folder=a(b") == "+model.folder='a(b'"
    )  # a key of the user's own, an existing path
    assert with_path_quoted("init_from=~/nets") == "init_from='~/nets'"  # no shell expands it there


def test_several_paths_of_a_sweep():
    for name in ("a(1)", "b 2"):
        Path(name).mkdir()
    sweep = check(["-m", "dataset=image_folder", "dataset.root=a(1),b 2"])
    assert not sweep.errors and [job.cfg.dataset.root for job in sweep.jobs] == ["a(1)", "b 2"]


def test_the_keys_that_take_paths_are_known():
    named = {"root", "path", "download_root", "cache_dir"}
    keys = {
        f"dataset.{key}"
        for file in (conf_dir() / "dataset").glob("*.yaml")
        for key in OmegaConf.load(file)
        if key in named
    }
    assert keys <= set(PATHS) and {"init_from", "teacher"} <= set(PATHS)


def test_a_folder_of_configurations_with_every_character(capsys):
    """Each place that a path of the user comes to: the current folder, --config-dir, data, the folder of a run."""
    name = "ä中 ()[]{}#,='\"`$%&!;~^<>|*?@:+\\"
    here = Path(name)
    (here / name / "model").mkdir(parents=True)
    for part in ("train", "test"):
        (here / name / part / "class").mkdir(parents=True)
    os.chdir(here)
    Path(name, "model", "own.yaml").write_text((conf_dir() / "model" / "digits_cnn.yaml").read_text())
    typed = [
        "--config-dir",
        name,
        "model=own",
        "dataset=image_folder",
        f"dataset.root={name}",
        f"hydra.run.dir={name}",
    ]
    plan = check([*typed, *QUIET])
    assert not plan.errors and plan.jobs[0].folder == Path(name) and plan.jobs[0].cfg.dataset.root == name
    for shown in (["--cfg", "job"], ["--info", "searchpath"]):
        assert train.main([*typed, *shown]) == 0 and name in capsys.readouterr().out
    typed[-1] += "/run"
    plan = check([*typed, *QUIET])
    assert train.main([*typed, *QUIET]) == 2  # the folder has no images
    record = json.loads(Path(name, "run", "result.json").read_text())
    assert record["status"] == "failed" and name in record["reason"]
    assert record["config_dir"] == name
    again = check(["--config-dir", record["config_dir"], *record["overrides"]])
    assert not again.errors and again.jobs[0].signature == plan.jobs[0].signature


@pytest.mark.parametrize(
    "typed", [["--config-dir", "${x}"], ["init_from=${x}"], ["dataset=text", "dataset.path=${x}"]]
)
def test_a_name_that_configurations_would_resolve(typed):
    Path("${x}").mkdir()
    (error,) = check(typed).errors
    assert "${x}: configurations resolve" in error
    os.chdir("${x}")
    assert "configurations resolve" in check([]).errors[0]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_that_does_not_resolve(key):
    words = [f"{key}=${{nosuch}}", *(["-m", "seed=1"] if "sweep" in key else [])]
    (error,) = check(words).errors
    assert error == f"{key}: Interpolation key 'nosuch' not found"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("lr=1=2", """"lr='1=2'\""""),
        ("model.name=Grüße", """"model.name='Grüße'\""""),
        ("model.name=a$b(", """'model.name='"'"'a$b('"'"''"""),
        ("exclude=[a(b]", "a text inside of a list"),
        ("(=3", "a key is set by key=value"),
        ("word", "a key is set by key=value"),
    ],
)
def test_a_word_that_is_not_understood_says_how_it_is_typed(typed, hint):
    (error,) = errors_of(typed)
    assert f"{typed!r}: not understood" in error and hint in error


def test_the_words_of_the_hint_are_understood():
    assert parse("model.name='a$b('").value() == "a$b("


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        (["--config-path", "x"], "--config-dir DIR adds a folder"),
        (["--config-path=x", "--cfg", "job"], "--config-dir DIR adds a folder"),
        (["--experimental-rerun", "x"], "restart=true"),
        (["init_from=\udcff"], r"init_from=\udcff: is not UTF-8"),
        (["--config-dir", "\udcff"], r"\udcff: is not UTF-8"),
    ],
)
def test_what_this_command_does_not_take_is_one_line(typed, part, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(typed)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1 and part in err


def test_a_folder_that_is_not_utf8():
    os.makedirs(b"\xff")
    os.chdir(b"\xff")
    (error,) = check([]).errors
    assert r"\udcff: the name of this folder is not UTF-8" in error


def test_a_search_takes_a_path_with_a_comma(capsys):
    Path("a,b").mkdir()
    assert search.main(["max_drop=0.1", "init_from=a,b"]) == 2
    assert capsys.readouterr().err.startswith("error: init_from=a,b: no run")
    assert search.main(["max_drop=0.1", "init_from=c,d"]) == 2
    assert "a search makes its own runs" in capsys.readouterr().err


def test_words_in_the_c_locale(tmp_path):
    """Where Python was told to take all text for ASCII."""
    (tmp_path / "ä").mkdir()
    path = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    command = [sys.executable, "-m", "diffq_exp.train", "init_from=ä"]
    done = subprocess.run(command, env=path, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: init_from=ä: no run")
