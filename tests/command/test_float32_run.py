"""The key `float32`: what the float32 run of a configuration has of its own."""

import pytest
from helpers.run_configs import TINY, ask

from diffq_exp.command.check import check
from diffq_exp.command.compose import composer
from diffq_exp.command.float32_run import float32_config, float32_overrides
from diffq_exp.command.signature import record_of, run_name

OWN = 'float32=["epochs=3","optimizer.weight_decay=0.1","task.label_smoothing=0.2"]'
RATE = ("quantizer=rate", "teacher=float32", OWN)


def _refused(*words: str) -> list[str]:
    plan = check([*TINY, "teacher=float32", *words])
    assert not plan.jobs
    return plan.errors


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("epochs=-1", "epochs=-1: a whole number >= 1 is allowed"),
        ("lr", "'lr': not understood; a key is set by key=value, without blanks"),
        ("lr=0.1,0.2", "lr=0.1,0.2: several values are given; a sweep needs -m"),
        ("scheduler.fnal=0", "scheduler.fnal: unknown; the nearest is scheduler.final"),
        ("+optimizer.foo=1", "optimizer.foo: torch.optim.Adam does not take it"),
        ("epochs@x=1", "epochs@x=1: key=value is allowed"),
        ("optimizer._target_=nowhere.SGD", "optimizer._target_=nowhere.SGD: "),
        ("epoch=3", "epoch=3: allowed are epochs, "),
        ("~scheduler.final", "~scheduler.final: key=value is allowed"),
    ],
)
def test_each_of_its_overrides_is_checked(given, error):
    (said,) = _refused(f'float32=["{given}"]')
    assert said.startswith(f"float32: {error}")


@pytest.mark.parametrize("given", ["seed=1", "val_fraction=0.5", "model=resnet20", "quantizer=qat", "teacher=null"])
def test_it_has_the_same_network_data_and_split(given):
    (said,) = _refused(f'float32=["{given}"]')
    assert said.startswith(f"float32: {given}: allowed are epochs, batch_size")


@pytest.mark.parametrize("second", ["epochs=2", "+epochs=2"])
def test_a_key_is_given_once(second):
    assert _refused(f'float32=["epochs=1","{second}"]') == ["float32: epochs: is given twice"]


def test_a_key_that_nothing_reads_is_refused():
    assert _refused("optimizer.lr=0.1", 'float32=["lr=0.3"]') == ["float32: lr: has no effect"]


def test_a_mistake_of_the_run_itself_is_said_once():
    errors = _refused("parallel=fsdp", 'float32=["epochs=1"]')
    assert len(errors) == 1 and not errors[0].startswith("float32")


@pytest.mark.parametrize(("given", "seen"), [("7", "7"), ("${epochs}", "2"), ("[null]", "[None]")])
def test_it_is_a_list(given, seen):
    assert _refused(f"float32={given}") == [f"float32={seen}: a list of texts or null is allowed"]


def test_mappings_in_an_experiment_of_the_users(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\nteacher: float32\nfloat32:\n  - epochs: 2\n"
    (tmp_path / "experiment" / "own.yaml").write_text(text)
    plan = check([*TINY, "--config-dir", str(tmp_path), "experiment=own"])
    assert plan.errors == ["float32=[{'epochs': 2}]: a list of texts or null is allowed"]


def test_only_the_float32_run_has_it():
    cfg = ask(*TINY, *RATE).cfg
    plain = float32_config(cfg)
    assert cfg.epochs != 3 and plain.epochs == 3
    assert plain.optimizer.weight_decay == 0.1 and plain.task.label_smoothing == 0.2
    assert plain.float32 is None and cfg.float32[0] == "epochs=3"


@pytest.mark.parametrize(
    ("typed", "own"),
    [
        ("optimizer.weight_decay=0.3", "optimizer.weight_decay=0.1"),
        ("+optimizer.amsgrad=true", "optimizer.amsgrad=false"),
        ("~optimizer.weight_decay", "+optimizer.weight_decay=0.1"),
        ("seed=3", "+optimizer.amsgrad=true"),
        ("seed=3", "+epochs=3"),
        ("epochs=5", "epochs=3"),
    ],
)
def test_the_command_of_the_float32_run_makes_the_same_run(typed, own):
    words = [*TINY, "quantizer=rate", "teacher=float32", f'float32=["{own}"]', typed]
    (job,) = check(words).jobs
    command = float32_overrides(job.cfg, words)
    assert typed not in command or typed == "seed=3"
    choices = {**job.cfg.hydra.runtime.choices, "quantizer": "none"}
    (again,) = check(command).jobs
    assert again.folder.name == run_name(float32_config(job.cfg), choices)


def test_a_run_is_named_after_it_where_it_has_a_float32_run():
    assert ask(*TINY, *RATE).folder.name != ask(*TINY, *RATE[:2]).folder.name
    assert ask(*TINY, "quantizer=ptq", OWN).folder.name != ask(*TINY, "quantizer=ptq").folder.name
    for without in (("quantizer=rate",), ("quantizer=none",)):
        assert ask(*TINY, *without, OWN).folder.name == ask(*TINY, *without).folder.name
        assert any(OWN in text for text in check([*TINY, *without, OWN]).warnings)


def test_a_run_is_named_after_its_float32_run_however_that_is_typed():
    """So that a folder of that run, given as the teacher, names the same run (test_run_float32.py)."""
    same = [
        None,
        "[]",
        f'["epochs={composer()(TINY).epochs}"]',
        '["epochs=2","clip=null"]',
        '["clip=null","epochs=2"]',
    ]
    for words in ([*TINY, "quantizer=rate", "teacher=float32"], [*TINY, "quantizer=ptq"]):
        _assert_one_name(words, same)


def _assert_one_name(words, same):
    assert len({ask(*words, *([] if one is None else [f"float32={one}"])).folder.name for one in same}) == 1


def test_runs_with_other_float32_runs_are_told_apart_in_their_records():
    """Else a report would take them for seeds of one point."""
    configs = []
    swapped = 'float32=["task.label_smoothing=0.2","epochs=3","optimizer.weight_decay=0.1"]'
    for words in (RATE, RATE[:2], (*RATE[:2], swapped)):
        cfg = composer()([*TINY, *words])
        configs.append(record_of(cfg, cfg.hydra.runtime.choices, words).config)
    assert configs[0]["float32"] == ["epochs=3", "optimizer.weight_decay=0.1", "task.label_smoothing=0.2"]
    assert configs[2] == configs[0]
    assert "float32" not in configs[1] and configs[0]["teacher"] == configs[1]["teacher"] == "float32"
