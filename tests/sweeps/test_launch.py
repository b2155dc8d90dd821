"""What a sweeper of Hydra's gets from its jobs: the validation headline of each; and the exit codes beside it."""

import importlib
import json
import logging
import math
import pickle
import sys
from pathlib import Path

import pytest
from helpers.run_configs import TINY
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.plugins.sweeper import Sweeper

from diffq_exp import train
from diffq_exp.command.check import check
from diffq_exp.command.compose import composer
from diffq_exp.runs.job import JobScore, exit_codes

# A sweeper that draws values from intervals, and goes on from the best: a job for each, one after the other.
PLUGIN = """
import json
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Trials(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        typed = OverridesParser.create().parse_overrides(arguments)
        fixed = [one.input_line for one in typed if not one.is_interval_sweep()]
        (sought,) = [one for one in typed if one.is_interval_sweep()]
        values = [sought.value().start, sought.value().end, sought.value().start]
        told = []
        for number, value in enumerate(values):
            (ended,) = self.launcher.launch([[*fixed, f"{sought.key_or_group}={value}"]], number)
            told.append([value, float(ended.return_value)])
        with open("told.json", "w") as file:
            json.dump(told, file)
"""


@pytest.fixture
def trials(tmp_path, monkeypatch):
    """The words that choose the sweeper, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "of_a_test.py").write_text(PLUGIN)
    (tmp_path / "own" / "hydra" / "sweeper").mkdir(parents=True)
    target = "_target_: hydra_plugins.of_a_test.Trials\n"
    (tmp_path / "own" / "hydra" / "sweeper" / "trials.yaml").write_text(target)
    monkeypatch.syspath_prepend(tmp_path)
    plugins, name = Plugins.instance(), "hydra_plugins.of_a_test"  # which looks for plugins once a process
    plugins.register(trials := importlib.import_module(name).Trials)
    yield ["-m", "--config-dir", "own", "hydra/sweeper=trials"]
    del plugins.class_name_to_class[f"{name}.Trials"]
    plugins.plugin_type_to_subclass_list[Sweeper].remove(trials)  # Hydra sorts the list
    sys.modules.pop(name, None)
    composer.cache_clear()


def told():
    return [score for _, score in json.loads(Path("told.json").read_text())]


def measured(**config):
    """The validation accuracy of the run with these values."""
    records = [json.loads(path.read_text()) for path in Path("outputs").glob("*/result.json")]
    (found,) = [one for one in records if config.items() <= one["config"].items()]
    return found["val"]["accuracy"]


TYPED = [*TINY, "quantizer=none", "optimizer=sgd", "epochs=1"]


@pytest.mark.parametrize(
    "launcher", ["hydra/launcher=basic", pytest.param("hydra.launcher.n_jobs=1", marks=pytest.mark.long)]
)
def test_a_sweeper_of_hydras_gets_the_validation_headline(trials, launcher):
    """The third trial repeats the first, whose run is finished by then."""
    assert train.main([*trials, *TYPED, launcher, "lr=interval(0.001,0.1)"]) == 0
    assert told() == [measured(lr=0.001), measured(lr=0.1), measured(lr=0.001)]
    assert all(0 < score <= 1 for score in told())


def test_a_trial_that_diverges_has_no_number_and_the_exit_code_1(trials):
    typed = [*TYPED, "batch_size=4", "dataset.train_images=24", "hydra/launcher=basic"]
    assert train.main([*trials, *typed, "lr=interval(1e30,0.01)"]) == 1
    assert [math.isnan(score) for score in told()] == [True, False, True]


@pytest.mark.parametrize("words", [["val_fraction=0"], ["dataset=text", "dataset.path=.", "dataset.val_share=0"]])
def test_a_sweeper_that_chooses_needs_a_validation_part(trials, words):
    (error,) = check([*trials, "lr=interval(0.01,0.1)", *words]).errors
    assert error == "val_fraction=0: Trials chooses by the validation score, and needs a part for it"
    assert check(["-m", "hydra/sweeper=basic", "val_fraction=0", "seed=0,1"]).errors == []


def test_a_score_carries_the_exit_code_into_another_process():
    score = pickle.loads(pickle.dumps(JobScore(0.25, 3)))
    assert (score, score.code) == (0.25, 3) and isinstance(score, float)


def test_a_job_whose_process_died_is_a_failure_of_the_sweep(capsys):
    died = JobReturn(status=JobStatus.FAILED, overrides=["seed=1"], _return_value=RuntimeError("killed"))
    done = JobReturn(status=JobStatus.COMPLETED, _return_value=JobScore(0.9, 0))
    assert exit_codes([[done, died], None]) == [0, 1] and exit_codes(None) == []
    assert capsys.readouterr().err == "error: seed=1: RuntimeError: killed\n"


@pytest.fixture
def root_log():
    """Python's root logger, which is put back."""
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield root
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.mark.parametrize("choice", ["default", "none"])
def test_other_libraries_tell_warnings_only(choice, root_log, capsys):
    """fontTools tells each table of a font, torch its caches when it is stopped."""
    configure_log(composer()([f"hydra/hydra_logging={choice}"]).hydra.hydra_logging, False)
    for level in (logging.INFO, logging.WARNING):
        logging.getLogger("of.somebody").log(level, "a text")
    told = capsys.readouterr()
    assert told.out == "" and told.err == "of.somebody: " * (choice == "default") + "a text\n"


@pytest.mark.parametrize(
    "words", [["hydra.run.dir=/proc/x"], ["-m", "seed=0,1", "hydra.sweep.dir=/proc/x", "hydra/sweeper=basic"]]
)
def test_a_folder_that_cannot_be_made(words, capsys):
    assert train.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: hydra.") and "/proc/x: cannot be made: " in err and err.count("\n") == 1
