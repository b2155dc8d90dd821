"""A sweep that is all done says that its data have changed since."""

from dataclasses import replace

from helpers.run_configs import TINY, listening

from diffq_exp.command.check import check
from diffq_exp.common.files import write_json
from diffq_exp.runs import data_record
from diffq_exp.runs.build import build_data
from diffq_exp.sweeps.changed_data import tell_if_data_changed

CHANGED = {"train": "0" * 16, "test": "0" * 16}


def jobs_of(tmp_path, *words):
    plan = check(["-m", *TINY, *words])
    assert not plan.errors
    return [replace(job, folder=tmp_path / job.folder.name) for job in plan.jobs]


def told_of(jobs, **data):
    for job in jobs:
        job.folder.mkdir(exist_ok=True)
        write_json(job.folder / "result.json", {"status": "finished", "signature": job.signature, "data": data})
    with listening() as lines:
        tell_if_data_changed(jobs)
    return lines


def test_each_data_set_is_read_once_and_told_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(data_record, "build_data", lambda *given: (read.append(1), build_data(*given))[1])
    jobs = jobs_of(tmp_path, "seed=0,1", "quantizer=qat,none", "dataset.test_images=16,17")
    told = told_of(jobs, digest=CHANGED, train=48, test=16)
    assert len(jobs) == 8 and len(read) == len(told) == 2
    assert told[0].startswith(f"the data of {jobs[0].folder.name} have changed since: train, test; restart=true")


def test_equal_data_and_older_records_are_passed_over(tmp_path):
    jobs = jobs_of(tmp_path, "seed=0,1")
    digest = build_data(jobs[0].cfg, "cpu").digest
    assert told_of(jobs, digest=digest) == [] and told_of(jobs, train=5) == []
