"""The command: one composition for a run, Hydra's own options, other sweepers, and what a mistake looks like."""

import json
import sys
from pathlib import Path

import pytest
from helpers.run_configs import TINY, listening
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffq_exp import train
from diffq_exp.command.compose import composer

CALLBACK = """
import os
from hydra.experimental.callback import Callback

def note(name):
    with open(os.environ["DIARY"], "a") as diary:
        print(name, os.environ.get("OF_THE_RUN"), file=diary)

class Diary(Callback):
    def on_run_start(self, **given): note("run starts")
    def on_run_end(self, **given): note("run ends")
    def on_job_start(self, **given): note("job starts")
    def on_job_end(self, **given): note("job ends")
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*typed):
    """-> exit code, and the lines that it logs."""
    composer.cache_clear()
    with listening() as lines:
        code = train.main(typed)
    return code, lines


def only_run():
    (folder,) = Path("outputs").glob("*-*")
    return folder


# ---- a run ------------------------------------------------------------------------------------------------------


def test_a_configuration_is_composed_once_for_a_run(monkeypatch):
    composed, load = [], ConfigLoaderImpl.load_configuration

    def counting(self, *given, **more):
        composed.append(given)
        return load(self, *given, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counting)
    own = ["quantizer=qat", "bits=3", "optimizer.lr=0.01", "+model.width=4", "hydra.job.chdir=false"]
    code, lines = command(*TINY, *own, "model._target_=helpers.run_pieces.NoNet")
    assert code == 2 and "NoNet" in lines[-1]  # the run itself began
    assert len(composed) == 1


def test_hydra_says_of_a_run_what_it_always_said(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # a sweep of an earlier test leaves its own
    assert command(*TINY, "epochs=1", "dataset.train_images=20", "++lr=0.01", "hydra.job.chdir=false")[0] == 0
    hydra = OmegaConf.load(only_run() / ".hydra" / "hydra.yaml").hydra
    assert hydra.mode == "RUN" and hydra.runtime.choices.dataset == "synthetic"
    replaced = {"epochs=2": "epochs=1", "dataset.train_images=64": "dataset.train_images=20"}
    assert hydra.overrides.task == [*(replaced.get(word, word) for word in TINY), "++lr=0.01"]
    assert hydra.overrides.hydra == ["hydra.job.chdir=false"]
    assert Path(hydra.runtime.output_dir) == only_run().absolute() and hydra.runtime.cwd == str(Path.cwd())
    assert "epochs=1" in hydra.job.override_dirname and "threads=1" in hydra.job.override_dirname
    assert not GlobalHydra.instance().is_initialized() and HydraConfig.instance().cfg is None


def test_callbacks_environment_and_folder_are_hydras(monkeypatch, tmp_path):
    Path("diary.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delenv("OF_THE_RUN", raising=False)
    monkeypatch.setenv("DIARY", str(Path("diary.txt").absolute()))
    own = [
        "+hydra.callbacks.diary._target_=diary.Diary",
        "+hydra.job.env_set.OF_THE_RUN=3",
        "hydra.run.dir=mine/${seed}",
        "hydra.job.chdir=true",
    ]
    words = [word for word in TINY if not word.startswith("epochs")]
    assert command(*words, "epochs=1", *own, "model._target_=helpers.run_pieces.NoNet")[0] == 2
    assert Path.cwd() == tmp_path
    assert json.loads(Path("mine/0/result.json").read_text())["status"] == "failed"
    assert Path("diary.txt").read_text().splitlines() == [
        "run starts None", "job starts 3", "job ends None", "run ends None",
    ]  # fmt: skip


# ---- Hydra's own options ----------------------------------------------------------------------------------------


def test_cfg_shows_the_configuration_and_writes_nothing(capsys):
    assert train.main(["quantizer=qat", "--cfg", "job", "bits=3", "--package", "quantizer", "--resolve"]) == 0
    assert "UniformQuantizer" in (out := capsys.readouterr().out) and "bits: 3" in out
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        (["--hydra-help"], "== Flags =="),
        (["--info", "searchpath"], "Search path"),
        (["--cfg", "hydra"], "GridSweeper"),
        (["--cfg", "all", "seed=7"], "seed: 7"),
    ],
)
def test_options_of_hydra(typed, part, capsys):
    assert train.main(typed) == 0
    out, err = capsys.readouterr()
    assert part in out + err and list(Path().iterdir()) == []


def test_another_primary_configuration_and_folder(capsys):
    Path("own").mkdir()
    Path("own/ours.yaml").write_text("defaults: [config, _self_]\nseed: 41\n")
    typed = ["--config-dir", "own", "--config-name", "ours", "--cfg", "job"]
    assert train.main(typed) == 0 and "seed: 41" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "part"),
    [
        (["--nosuch"], "--nosuch"),
        (["--cfg", "jobs"], "jobs"),
        (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
        (["--resolve"], "--resolve needs --cfg"),
    ],
)
def test_a_wrong_option_is_one_line(typed, part, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(typed)
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.count("\n") == 1 and part in err


# ---- sweeps -----------------------------------------------------------------------------------------------------

SHORT = [*TINY, "epochs=1", "dataset.train_images=20"]


@pytest.mark.parametrize(("lr", "code"), [pytest.param("0.1", 0, marks=pytest.mark.long), ("1e30", 1)])
def test_hydras_own_sweeper_and_launcher_in_this_process(lr, code):
    basic = ["hydra/sweeper=basic", "hydra/launcher=basic", "optimizer=sgd", "batch_size=4"]
    assert command("-m", *SHORT, *basic, f"lr={lr}", "seed=0,1")[0] == code
    statuses = [json.loads(path.read_text())["status"] for path in Path("outputs").glob("*/result.json")]
    assert statuses == ["diverged" if code else "finished"] * 2


@pytest.mark.long
def test_hydras_own_sweeper_with_our_launcher():
    """One of its runs diverges, in a process of its own."""
    words = ["hydra/sweeper=basic", "hydra.launcher.n_jobs=2", "optimizer=sgd", "batch_size=4", "lr=0.1,1e30"]
    assert command("-m", *SHORT, *words)[0] == 1
    results = [json.loads(path.read_text()) for path in Path("outputs").glob("*/result.json")]
    assert sorted(result["status"] for result in results) == ["diverged", "finished"]
    assert len(list(Path("outputs").glob("*/model.safetensors"))) == 1


def test_interrupted_before_it_began(monkeypatch, capsys):
    def interrupt(*_given):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffq_exp.command.check.check_arguments", interrupt)
    monkeypatch.setattr(sys, "argv", ["train", "seed=1"])
    assert train.main() == 130 and capsys.readouterr().err == "interrupted before the run began\n"
