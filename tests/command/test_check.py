"""The check of a command line: all errors at once, every job of a sweep, nothing written or imported."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_lines import checked, errors_of, only_error

from diffq_exp.command.check import check
from diffq_exp.command.schema import PLAIN, Config, conf_dir

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))

# The keys that the issue names.
KEYS = {
    "noise", "param", "group_size", "penalty", "min_bits", "max_bits", "init_bits", "bits", "min_size", "exclude",
    "float16", "seed", "epochs", "batch_size", "accumulate", "lr", "bits_lr", "val_fraction", "device", "precision",
    "compile", "threads", "num_workers", "init_from", "restart",
}  # fmt: skip


# ---- sweeps --------------------------------------------------------------------------------------------------


def test_a_sweep_checks_every_value():
    sweep = ["penalty=1,-1,3", "model=resnet20,nope", "bits=choice(4,99)", "seed=range(-1,2)", "lr=0.1,nan"]
    found = errors_of("-m", *sweep)
    told = "\n".join(found)
    assert len(found) == 5
    for part in ("penalty=-1", "model=nope", "bits=99", "seed=-1", "lr=nan"):
        assert part in told


def test_a_sweep_checks_what_every_value_gives_with_the_others():
    error = only_error("-m", "min_bits=2,9")
    assert "min_bits=9" in error and "init_bits" in error


def test_a_good_sweep():
    assert errors_of("-m", "penalty=0.3,3,30", "quantizer=diffq,qat", "seed=range(0,3)", "noise=uniform") == []


@pytest.mark.parametrize("values", ["range(1e9)", "range(0,-1e9,-1)", "shuffle(range(1e9))", "range(1e400)"])
def test_a_range_of_more_runs_than_anyone_does(values):
    assert "a sweep of at most 10,000 is allowed" in only_error("-m", f"seed={values}")


@pytest.mark.parametrize("key", ["seed", "model", "hydra/launcher"])
@pytest.mark.parametrize("values", ["range(0,5,0)", "range(nan)", "range(0,5,nan)", "range(-inf,inf)"])
def test_a_range_that_leads_nowhere(key, values):
    expected = f"{key}={values}: range(start,stop,step) is allowed, with a step that is not 0"
    assert only_error("-m", f"{key}={values}") == expected


def test_more_combinations_than_anyone_does():
    error = only_error("-m", "seed=range(9000)", "epochs=1,2")
    assert error == "all combinations: 18,000 runs; a sweep of at most 10,000 is allowed"


def test_several_values_need_a_sweep():
    found = errors_of("penalty=1,3", "model=resnet18,resnet20")
    assert len(found) == 2
    assert all("-m" in error for error in found)
    assert "penalty=1,3" in found[-1] and "model=resnet18,resnet20" in found[0]


# ---- good command lines --------------------------------------------------------------------------------------


def test_the_bare_command_is_right():
    plan = checked()
    assert len(plan.jobs) == 1 and not plan.errors and not plan.warnings


NEEDS_DATA = {
    "imagenet_deit": "dataset.root",
    "text_gpt": "dataset.path",
    "pareto_text": "dataset.path",
    "wikitext103_transformer": "dataset.root",
}


SWEEPS = ("noise_", "pareto_")  # tests/conf plans them too


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * name.startswith(SWEEPS)) for name in EXPERIMENTS]
)
def test_every_experiment_is_right(name, tmp_path):
    place = NEEDS_DATA.get(name)  # that only its user knows
    plan = check([f"experiment={name}", *([f"{place}={tmp_path}"] if place else [])])
    assert plan.jobs and not plan.errors and not plan.warnings


def test_the_schema_has_the_keys_of_the_issue():
    assert set(PLAIN) >= KEYS
    config = Config()
    for name, allowed in PLAIN.items():
        assert allowed.allows(getattr(config, name)), name


# ---- the command ---------------------------------------------------------------------------------------------


def refused_command(folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a command with two errors says in a process of its own, and its seconds of CPU."""
    command = [sys.executable, "-X", "importtime", "-m", "diffq_exp.train", "noise=foo", "param=foo"]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_refused_command_is_quick_and_imports_no_torch(tmp_path):
    done, seconds = refused_command(tmp_path)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    told = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(told) == 2 and "noise=foo" in told[0] and "param=foo" in told[1]
    assert "hydra" in imported and not imported & {"torch", "torchvision", "wandb", "sklearn"}
    assert list(tmp_path.iterdir()) == []
    assert seconds < 1.5 or refused_command(tmp_path)[1] < 1.5  # a crowded machine gets a second try
