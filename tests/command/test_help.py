"""--help explains every key in a line and lists every choice; --cfg job shows the config; neither writes."""

import re
import sys

import pytest

from diffq_exp.command.help import help_text
from diffq_exp.command.schema import GROUPS, PLAIN, Config, conf_dir
from diffq_exp.train import main

# Defaults as a user would type them. true and false are not 1 and 0, nor the other way round.
DEFAULTS = {
    "accumulate": "1", "seed": "0", "compile": "false", "float16": "false", "restart": "false", "clip": "null",
    "threads": "null", "init_from": "null", "noise": "gaussian", "param": "bits", "group_size": "8",
    "min_bits": "2.0", "init_bits": "8.0", "max_bits": "15.0", "exclude": "[]", "device": "auto",
    "precision": "float32",
}  # fmt: skip


def line_of(key: str) -> str:
    (line,) = [line for line in help_text().splitlines() if line.strip().startswith(f"{key}=")]
    return line


@pytest.mark.parametrize("key", PLAIN)
def test_every_key_is_explained_in_a_line(key):
    line = line_of(key)
    text = Config.__dataclass_fields__[key].metadata["help"]
    assert len(text) > 5 and text in line and PLAIN[key].text in line
    for choice in PLAIN[key].choices:
        assert choice in line


@pytest.mark.parametrize("key", DEFAULTS)
def test_defaults_are_shown_as_they_are_typed(key):
    shown = line_of(key).split()[0]
    assert shown in (f"{key}={DEFAULTS[key]}", f"{key}={DEFAULTS[key].removesuffix('.0')}")


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_listed(group):
    choices = {path.stem for path in (conf_dir() / group).glob("*.yaml")}
    (line,) = [line for line in help_text().splitlines() if line.split()[:1] == [group]]
    assert choices and choices == set(re.split(r",? +", line.strip())[1:])


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_the_command_prints_it(word, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", word])
    assert main() == 0
    out, err = capsys.readouterr()
    assert out == help_text() + "\n" and err == ""
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_shows_the_config_and_writes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "quantizer=qat", "bits=3"])
    assert main() == 0
    out, _ = capsys.readouterr()
    assert re.search(r"^bits: 3(\.0)?$", out, re.M) and "UniformQuantizer" in out
    assert list(tmp_path.iterdir()) == []


def test_the_choices_of_a_users_folder(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("model/mine", "experiment/ours", "model/gpt"):
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / f"{name}.yaml").touch()
    assert main(["--config-dir", "conf", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (models,) = [line.split() for line in lines if line.split()[:1] == ["model"]]
    (experiments,) = [line for line in lines if line.split()[:1] == ["experiment"]]
    assert "mine," in models and models.count("gpt,") == 1 and "ours" in experiments
    assert main(["--help", "--config-dir=nosuch"]) == 2
    assert capsys.readouterr().err == "error: --config-dir nosuch: no such folder\n"


@pytest.mark.parametrize(
    "words",
    [
        ["job", "--package", "nope"],
        ["job", "-p", "hydra.job"],
        ["all", "-p", "["],
        ["hydra", "--package", "hydra.nope"],
    ],
)
def test_a_part_of_the_config_that_is_not_there(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", *words])
    assert main() == 2
    told = f"error: --package {words[-1]}: is not in the configuration that --cfg {words[0]} shows\n"
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("word", ["-penalty", "-penalty=3", "-cfg", "-lr=3"])
def test_a_key_with_a_dash_is_no_option_of_hydras(word, capsys):
    with pytest.raises(SystemExit) as end:
        main([word, "3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: unrecognized arguments: {word}; a key is set by key=value")


def test_a_part_of_the_config_is_for_those_who_look_at_it(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--package", "model"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --package needs --cfg; --hydra-help lists the options\n"
