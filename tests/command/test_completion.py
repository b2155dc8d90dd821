"""Tab completion of the scripts, and the scripts themselves."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffq_exp import search, train
from diffq_exp.command.arguments import parser
from diffq_exp.command.completion import OPTIONS, completions
from diffq_exp.command.schema import GROUPS, NODES, PLAIN, conf_dir, group_choices

ROOT = Path(__file__).parents[2]
SCRIPTS = dict(re.findall(r'^(diffq-\w+) = "([\w.:]+)"$', (ROOT / "pyproject.toml").read_text(), re.M))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("diffq-train noi", ["noise="]),
        ("diffq-train noise=", ["noise=gaussian", "noise=uniform", "noise=none"]),
        ("diffq-train quantizer.noise=u", ["quantizer.noise=uniform"]),
        ("diffq-train -m seed=1,2 quantizer=qat,d", ["quantizer=qat,diffq"]),
        ("diffq-train ++compile=", ["++compile=true", "++compile=false"]),
        ("diffq-train quantizer=lsq quantizer.b", ["quantizer.bits="]),
        ("diffq-train quantizer=lsq quantizer.group", []),
        ("diffq-train quantizer.group", ["quantizer.group_size="]),
        ("diffq-train --config-", ["--config-dir", "--config-name"]),
        ("diffq-train --config-dir ", []),
        ("diffq-train lr=", []),
        ("diffq-train 'seed=1", []),
        ("diffq-train hydra/swe", ["hydra/sweeper="]),
    ],
)
def test_words(line, words):
    assert completions(line) == words


def test_every_key_group_and_choice():
    words = completions("diffq-train ")
    assert set(words) == {f"{key}=" for key in (*PLAIN, *GROUPS)} | {f"{node}." for node in NODES}
    for group in GROUPS:
        assert completions(f"diffq-train {group}=") == [f"{group}={name}" for name in group_choices(group)]
    keys = yaml.safe_load((conf_dir() / "dataset" / "text.yaml").read_text())
    assert completions("diffq-train dataset=text dataset.") == sorted(f"dataset.{key}=" for key in keys)


def test_a_users_folder_and_paths():
    Path("my conf/model").mkdir(parents=True)
    Path("my conf/model/own.yaml").write_text("_target_: mine.Net\nwidth: 3\n")
    Path("other").touch()
    assert completions("diffq-train --config-dir my\\ conf model=o") == ["model=own"]
    assert completions("diffq-train --config-dir 'my conf' model=own model.w") == ["model.width="]
    assert completions("diffq-train init_from=") == ["init_from=my\\ conf/", "init_from=other"]
    assert completions("diffq-train init_from=my\\ conf/") == ["init_from=my\\ conf/model/"]
    assert completions("diffq-train init_from=nosuch/") == []


def test_what_cannot_be_read_completes_to_nothing(monkeypatch):
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/broken.yaml").write_text("a: [")
    Path("conf/model/list.yaml").write_text("[1]")
    Path("home").mkdir()
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    Path("home/nets").mkdir()
    for name in ("broken", "list", "nosuch"):
        assert completions(f"diffq-train --config-dir conf model={name} model.") == ["model._target_="]
    assert completions("diffq-train init_from=~/n") == ["init_from=~/nets/"]
    assert completions("diffq-train init_from=~nosuchuser/") == completions("diffq-train init_from=a\\0/") == []
    assert completions("diffq-train init_from=conf/model/list.yaml/") == []
    monkeypatch.setattr(os, "listdir", lambda folder: os.stat("/nosuch"))
    assert completions("diffq-train init_from=conf/") == []


def test_a_search_has_keys_of_its_own(monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "diffq-search max_")
    assert search.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == ["max_bits=", "max_drop="]


def test_options_are_those_of_hydra():
    said = parser().format_usage()
    assert all(option in said for option in OPTIONS)


@pytest.mark.parametrize("words", [[], ["query"], ["install=nosuch"], ["seed=1"]])
def test_a_wrong_request_is_one_line(words, capsys):
    assert train.main(["-sc", *words]) == 2
    assert capsys.readouterr().err.startswith("error: -sc: install=bash")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_main_of_ours(name):
    module, _, function = SCRIPTS[name].partition(":")
    assert name == f"diffq-{module.rpartition('.')[2]}"
    assert callable(getattr(importlib.import_module(module), function))


def test_there_is_a_script_for_each_entry_point():
    entries = {path.stem for path in (ROOT / "diffq_exp").glob("*.py")} - {"__init__"}
    assert {f"diffq-{name}" for name in entries} == SCRIPTS.keys()


def script(name: str) -> Path:
    """What pip makes of an entry of [project.scripts]."""
    module, _, function = SCRIPTS[name].partition(":")
    path = Path("bin", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    path.chmod(0o755)
    return path


def test_bash_completes_the_scripts():
    """As bash does it: it calls the function of a command and takes COMPREPLY."""
    folder = script("diffq-train").parent.absolute()
    script("diffq-evaluate")
    text = """
        eval "$(diffq-train -sc install=bash)"
        complete -p diffq-train diffq-search diffq-report diffq-evaluate diffq-export > /dev/null || exit 1
        COMP_LINE="diffq-train quantizer=ra seed=1"; COMP_POINT=24
        _diffq diffq-train quantizer=ra 2> /dev/null; printf '%s\\n' "${COMPREPLY[@]}"
        _diffq_options diffq-evaluate --led; printf '%s\\n' "${COMPREPLY[@]}"
        eval "$(diffq-train -sc uninstall=bash)"; complete -p diffq-train 2> /dev/null || echo gone
    """
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["quantizer=rate", "quantizer=rate_biases", "--ledger", "gone"], done.stderr


def test_a_script_finds_modules_in_the_current_folder():
    Path("mine.py").write_text("class Net: ...\n")
    command = [str(script("diffq-train").absolute()), "model._target_=mine.Nte"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert done.stderr == "error: model._target_=mine.Nte: mine has no 'Nte'; the nearest is Net\n"
