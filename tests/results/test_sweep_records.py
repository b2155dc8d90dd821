"""What a sweep has swept is what its report compares."""

import json

import pytest
from helpers.made_runs import made_run

from diffq_exp.common.files import write_json
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import compared_by, read_sweep, runs_of


def sweep_of(outputs, jobs, name="mine", **more):
    """Runs as the jobs describe them, and the record of their sweep."""
    folders = [made_run(outputs, job.split()) for job in jobs]
    records = [
        {"folder": folder.name, "signature": folder.name[-10:], "overrides": job.split()}
        for folder, job in zip(folders, jobs, strict=True)
    ]
    (outputs / ".sweeps").mkdir(exist_ok=True)
    write_json(outputs / ".sweeps" / f"{name}.json", {"name": name, "command": "x", "jobs": records, **more})
    return read_sweep(outputs, name)


@pytest.mark.parametrize(
    ("jobs", "by"),
    [
        (["noise=gaussian param=bits", "noise=uniform param=noise"], ("noise", "param")),
        (["penalty=1 seed=0", "penalty=10 seed=1"], ("quantizer",)),
        (["quantizer=qat bits=2", "quantizer=lsq bits=3"], ("quantizer",)),
        (["group_size=1", "group_size=8 quantizer=diffq", "quantizer=qat"], ("quantizer", "group_size")),
        (["dataset=digits penalty=1", "dataset=mnist penalty=1"], ("quantizer",)),
        (["target_mb=0.1", "target_mb=0.2"], ("quantizer",)),
        (["quantizer.extra_bits=0", "quantizer.extra_bits=1"], ("quantizer.extra_bits",)),
        (["experiment=digits lr=0.1", "experiment=best lr=0.2 quantizer=rate"], ("experiment", "lr")),
    ],
)  # fmt: skip
def test_what_is_swept_is_what_is_compared(tmp_path, jobs, by):
    assert sweep_of(tmp_path, jobs).by == by


def test_the_sweep_says_otherwise(tmp_path):
    jobs = ["noise=gaussian param=bits", "noise=uniform param=noise"]
    assert sweep_of(tmp_path, jobs, by=["noise"]).by == ("noise",)


def test_a_sweep_over_noise_and_param_has_a_front_for_each(tmp_path):
    jobs = [
        f"noise={noise} param={param} penalty={penalty}"
        for noise in ("gaussian", "uniform", "none")
        for param in ("bits", "noise")
        for penalty in (0.3, 3)
    ]
    sweep = sweep_of(tmp_path, jobs)
    report = make_report(runs_of(sweep, find_runs([tmp_path])), sweep, by=sweep.by)
    methods = report.problems[0].methods
    assert {name: len(method.points) for name, method in methods.items()} == {
        **{"gaussian bits": 2, "gaussian noise": 2, "uniform bits": 2, "uniform noise": 2},
        **{"noise=none bits": 2, "noise=none noise": 2},  # and not float32, which is quantizer=none
    }


def test_a_report_of_all_runs_compares_what_their_sweeps_do(tmp_path):
    sweep_of(tmp_path, ["noise=gaussian", "noise=uniform"], "a")
    runs = find_runs([tmp_path])
    assert compared_by([tmp_path], runs) == ("noise",)
    sweep_of(tmp_path, ["quantizer=qat bits=2", "quantizer=lsq bits=2"], "b")
    assert compared_by([tmp_path], find_runs([tmp_path])) == ("quantizer", "noise")
    assert compared_by([tmp_path], runs) == ("noise",)  # b's runs are not among these
    (tmp_path / ".sweeps" / "c.json").write_text("{")
    assert compared_by([tmp_path], runs) == ("noise",)


def test_runs_of_no_sweep_are_compared_by_quantizer(tmp_path):
    made_run(tmp_path, ["noise=gaussian"])
    made_run(tmp_path, ["noise=uniform"])
    assert compared_by([tmp_path], find_runs([tmp_path])) == ("quantizer",)


def test_an_experiment_is_a_key_of_its_runs(tmp_path):
    folder = made_run(tmp_path, ["quantizer=qat"])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "overrides": ["experiment=digits", "quantizer=qat"]}))
    assert find_runs([tmp_path])[0].value("experiment") == "digits"
