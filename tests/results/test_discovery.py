"""Which runs are found, what is read of them, and what cannot be read."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.made_runs import made_run, made_sweep

from diffq_exp.results.discovery import Run, find_runs, read_value
from diffq_exp.results.records import RunRecord
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of


def test_runs_are_found_at_any_depth_and_not_in_what_is_no_output(tmp_path):
    wanted = {made_run(tmp_path / "a" / "b", ["bits=2"]), made_run(tmp_path, ["bits=3"])}
    for place in (".earlier", ".sweeps", "wandb", "report"):
        made_run(tmp_path / place, ["bits=4"])
    made_run(next(iter(wanted)), ["bits=5"])  # nothing of a run's own folder is a run
    assert {run.folder for run in find_runs([tmp_path])} == wanted
    assert {run.folder for run in find_runs([tmp_path, tmp_path / "a"])} == wanted


def test_a_run_itself_may_be_named(tmp_path):
    folder = made_run(tmp_path)
    assert [run.folder for run in find_runs([folder])] == [folder]


@pytest.mark.parametrize("is_file", [True, False])
def test_a_root_that_is_no_folder(tmp_path, is_file):
    path = tmp_path / "runs"
    if is_file:
        path.touch()
    with pytest.raises(ValueError, match="runs: no such folder"):
        find_runs([path])


def test_of_one_signature_the_finished_and_then_the_newest(tmp_path):
    folders = {
        name: made_run(tmp_path / name, status=status)
        for name, status in (("a", "failed"), ("b", "finished"), ("c", "finished"), ("d", "failed"))
    }
    for age, folder in enumerate(folders.values()):
        os.utime(folder / "result.json", (age, age))
    (run,) = find_runs([tmp_path])
    assert run.folder == folders["c"]
    os.utime(folders["b"] / "result.json", (9, 9))
    (run,) = find_runs([tmp_path])
    assert run.folder == folders["b"]


def test_running_with_a_free_lock_was_killed(tmp_path):
    folder = made_run(tmp_path, status="running")
    assert find_runs([tmp_path])[0].status == "killed"
    with FileLock(folder / ".lock"):
        assert find_runs([tmp_path])[0].status == "running"


def test_what_is_read_of_a_run(tmp_path):
    made_run(tmp_path, ["quantizer=diffq", "penalty=3", "seed=2", "quantizer.extra_bits=1"], accuracy=0.9, mb=0.1)
    (run,) = find_runs([tmp_path])
    assert (run.score, run.size("file"), run.size("float32"), run.seed) == (0.9, 0.1, 1.067, 2)
    assert run.problem == ("digits", "digits_cnn", ("accuracy", "%", True))
    assert [run.value(key) for key in ("quantizer", "penalty", "quantizer.training.penalty")] == ["diffq", 3, 3]
    assert [run.value(key) for key in ("quantizer.extra_bits", "bits", "nonsense.deep")] == [1, None, None]
    assert "quantizer.noise" not in run.own and run.own["noise"] == "uniform"
    assert run.command == "python -m diffq_exp.train quantizer=diffq penalty=3 seed=2 quantizer.extra_bits=1"


def test_a_command_can_be_pasted():
    run = Run(Path("x"), RunRecord(overrides=["dataset.root=my images", "exclude=[a,b]"]), "failed")
    assert run.command == "python -m diffq_exp.train 'dataset.root=my images' 'exclude=[a,b]'"


def test_a_folder_or_network_that_a_choice_does_not_name_is_part_of_the_problem():
    config = {"dataset": {"root": "/data/flowers"}, "model": {"name": "resnet50"}}
    record = RunRecord(choices={"dataset": "image_folder", "model": "timm"}, config=config)
    assert Run(Path("x"), record, "finished").problem[:2] == ("image_folder flowers", "timm resnet50")
    for dataset, keys, named in (
        ("huggingface", {"name": "uoft-cs/cifar10", "train": "train"}, "huggingface cifar10"),
        ("huggingface_text", {"name": "wikitext", "subset": "raw"}, "huggingface_text wikitext raw"),
        ("webdataset", {"train": "/data/train-{0..9}.tar", "test": "test.tar"}, "webdataset train-{0..9}.tar"),
    ):
        record = RunRecord(choices={"dataset": dataset}, config={"dataset": keys})
        assert Run(Path("x"), record, "finished").problem[0] == named


BAD = {
    "half a file": '{"status": "fin',
    "a list": "[]",
    "no config": json.dumps({"status": "finished", "test": {"accuracy": 0.9}}),
    "config of another shape": json.dumps({"status": "finished", "config": [1], "choices": "x", "overrides": None}),
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_record_that_is_none_is_told_in_a_line_and_left_out(tmp_path, content):
    folder = made_run(tmp_path, ["seed=1"])
    made_run(tmp_path, ["seed=2"])
    (folder / "result.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    report = make_report(find_runs([tmp_path]))
    (line,) = report.left_out
    assert str(folder) in line and "\n" not in line
    assert [run.seed for run in report.runs] == [2] and report.others == []


@pytest.mark.parametrize("lost", ["test", "size_mb", "data"])
def test_a_finished_run_without_numbers_is_left_out(tmp_path, lost):
    folder = made_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    del result[lost]
    (folder / "result.json").write_text(json.dumps(result))
    report = make_report(find_runs([tmp_path]))
    assert report.problems == [] and len(report.left_out) == 1


def test_nan_of_a_finished_run_is_no_accuracy(tmp_path):
    folder = made_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    result["test"]["accuracy"] = None  # what records make of nan
    (folder / "result.json").write_text(json.dumps(result))
    assert "no test accuracy" in make_report(find_runs([tmp_path])).left_out[0]


def test_a_sweep_has_its_jobs_in_their_order_and_what_is_missing(tmp_path):
    name = made_sweep(tmp_path, seeds=1).stem
    made_run(tmp_path, ["bits=7", "quantizer=qat"])  # none of the sweep's
    sweep = read_sweep(tmp_path, name)
    runs = runs_of(sweep, find_runs([tmp_path]))
    assert [run.signature for run in runs] == [job.signature for job in sweep.jobs]
    assert [run.status for run in runs].count("missing") == 2
    assert (sweep.by, sweep.command) == (("quantizer",), "python -m diffq_exp.train -m experiment=pareto_digits")
    assert runs[-1].value("bits") == 6 and runs[-1].value("lr") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pareto_digits-1a2b3c4e", "did you mean 'pareto_digits-1a2b3c4d'"),
        ("x", "there are: pareto_digits-1a2b3c4d"),
    ],
)
def test_an_unknown_sweep_names_those_there_are(tmp_path, name, message):
    made_sweep(tmp_path, seeds=1)
    with pytest.raises(ValueError, match=message):
        read_sweep(tmp_path, name)


@pytest.mark.parametrize("record", ['{"name": "s"}', '{"name": "s", "command": "", "jobs": [1]}', "[", "{}"])
def test_a_damaged_record_of_a_sweep(tmp_path, record):
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps" / "s.json").write_text(record)
    with pytest.raises(ValueError, match=r"s\.json"):
        read_sweep(tmp_path, "s")


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("0.3", 0.3), ("1e-3", 1e-3), ("true", True), ("qat", "qat")]
)
def test_typed_values(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


@pytest.mark.parametrize(
    "odd",
    [
        {"overrides": 3},
        {"bits": "abc"},
        {"bits": {"layers": 1}},
        {"git_commit": 5},
        {"seconds": "x"},
        {"test": []},
        {"headline": 3},
        {"headline": {"higher_is_better": "no"}},
        {"headline": {"tolerances": ["x"]}},
    ],
)
def test_a_record_of_another_shape_is_left_out_and_named(odd, tmp_path):
    good, bad = made_run(tmp_path, ["bits=2"]), made_run(tmp_path, ["bits=3"])
    result = json.loads((bad / "result.json").read_text())
    (bad / "result.json").write_text(json.dumps({**result, **odd}))
    report = make_report(find_runs([tmp_path]))
    assert [run.folder for run in report.runs] == [good]
    (line,) = report.left_out
    assert str(bad / "result.json") in line and next(iter(odd)) in line


@pytest.mark.parametrize(("group", "name"), [("test", "accuracy"), ("size_mb", "file"), ("data", "classes")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1])
def test_a_number_that_is_none_is_not_reported(group, name, value, tmp_path):
    if (name, value) == ("accuracy", -1):
        pytest.skip("a task may score as it likes")
    folder = made_run(tmp_path)
    result = json.loads((folder / "result.json").read_text())
    result[group][name] = value
    (folder / "result.json").write_text(json.dumps(result))
    report = make_report(find_runs([tmp_path]))
    assert report.problems == [] and len(report.left_out) == 1


def test_on_a_disk_that_is_only_read_nobody_is_at_work(tmp_path, monkeypatch):
    folder = made_run(tmp_path, status="running")
    (folder / ".lock").touch()

    def refuse(*_args, **_more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("diffq_exp.results.run_files.FileLock.acquire", refuse)
    assert find_runs([tmp_path])[0].status == "killed"


def test_the_command_of_a_run_names_the_config_folder(tmp_path):
    folder = made_run(tmp_path, ["bits=3"])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "config_dir": "my conf"}))
    assert find_runs([tmp_path])[0].command == "python -m diffq_exp.train --config-dir 'my conf' bits=3"
