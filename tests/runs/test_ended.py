"""A finished run whose files were damaged since: made again from its checkpoint, or refused by name."""

import json
import shutil

import pytest
from helpers.run_configs import TINY, do, listening
from helpers.run_folders import content, never, payloads

from diffq_exp import storage
from diffq_exp.command.check import check
from diffq_exp.results.intact import damage
from diffq_exp.results.metrics import read_rows
from diffq_exp.results.records import read_record
from diffq_exp.runs.ended import check_can_be_made_again, is_whole
from diffq_exp.sweeps.sweep import status
from diffq_exp.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("same_commit")

MODEL = "model.safetensors"


@pytest.fixture
def run(finished, tmp_path):
    """A finished run, to be damaged."""
    shutil.copytree(finished.folder, tmp_path / "outputs" / finished.folder.name)
    return tmp_path / "outputs" / finished.folder.name


def altered(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-5],
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"x",
    "altered in its header": lambda data: altered(data, 12),
    "altered in its middle": lambda data: altered(data, len(data) // 2),
    "altered in its last byte": lambda data: altered(data, len(data) - 1),
}


def change_record(folder, **values):
    record = {**json.loads((folder / "result.json").read_text()), **values}
    (folder / "result.json").write_text(
        json.dumps({key: value for key, value in record.items() if value is not None})
    )


@pytest.mark.parametrize("old", [False, True], ids=["", "record without a checksum"])
@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_seen(how, old, run):
    if old:
        change_record(run, checksum=None)
    record = read_record(run)
    assert is_whole(run, record) and damage(run, record) is None
    (run / MODEL).write_bytes(DAMAGE[how]((run / MODEL).read_bytes()))
    assert not is_whole(run, record)
    with listening() as lines:
        check_can_be_made_again(run, record, trains=True)
    assert str(run / MODEL) in lines[0] and lines[0].endswith("it is made again") and len(lines) == 1


def test_the_file_of_another_run_is_seen(run):
    """A whole file, of the same size."""
    stored, config = storage.read(run / MODEL)
    next(iter(stored.floats.values())).mul_(-1)
    storage.save(stored, run / MODEL, config, coding="packed")
    assert storage.open_stored(run / MODEL) and "not the file that the run left" in damage(run, read_record(run))


def test_it_is_made_again_from_the_checkpoint(finished, run, monkeypatch):
    (run / MODEL).write_bytes((run / MODEL).read_bytes()[:-5])
    monkeypatch.setattr(Trainer, "_train_epoch", never)
    again = do(*TINY, root=run.parents[1])
    assert again.code == 0 and again.folder == run
    assert str(run / MODEL) in again.lines[0] and "is made again" in again.lines[0]
    assert payloads(run) == payloads(finished.folder)
    assert {key: again.result[key] for key in ("status", "test", "checksum")} == {
        key: finished.result[key] for key in ("status", "test", "checksum")
    }


@pytest.mark.parametrize(
    "checkpoint", [None, *(pytest.param(data, marks=pytest.mark.long) for data in (b"", b"PK\x03\x04"))]
)
def test_without_a_checkpoint_it_is_refused_and_the_numbers_stay(checkpoint, run):
    (run / MODEL).write_bytes(b"")
    (run / "checkpoint.pt").unlink()
    if checkpoint is not None:
        (run / "checkpoint.pt").write_bytes(checkpoint)
    before = content(run)
    again = do(*TINY, root=run.parents[1])
    assert again.code == 2 and len(again.lines) == 1 and content(run) == before
    assert str(run / MODEL) in again.text and "checkpoint.pt" in again.text and "restart=true" in again.text


def test_ptq_makes_its_float32_run_again_and_itself(tmp_path):
    ptq = (*TINY, "epochs=1", "quantizer=ptq")
    first = do(*ptq, root=tmp_path)
    (source,) = [folder for folder in first.folder.parent.iterdir() if folder != first.folder]
    whole = {folder: (folder / MODEL).read_bytes() for folder in (source, first.folder)}
    for folder in whole:
        (folder / MODEL).write_bytes(b"")
    again = do(*ptq, root=tmp_path)
    assert again.code == 0 and whole == {folder: (folder / MODEL).read_bytes() for folder in whole}
    assert [line for line in again.lines if line.endswith("it is made again")] != []


def test_a_sweep_does_not_take_it_for_done(run, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    (job,) = check([*TINY]).jobs
    assert job.folder.name == run.name and status(job) == "finished"
    (run / MODEL).write_bytes(altered((run / MODEL).read_bytes(), 100))
    assert status(job) == "missing"


def test_rows_of_metrics_that_were_lost_come_back(finished, run):
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    again = do(*TINY, root=run.parents[1])
    assert again.code == 0 and "had lost rows" in again.lines[0]
    assert read_rows(path) == finished.rows and len(finished.rows) == 2
    assert "lost" not in do(*TINY, root=run.parents[1]).text


def test_what_was_set_aside_goes_when_the_run_is_told_as_finished(run):
    """The process was killed between the record of the end and this."""
    shutil.copytree(run, run / ".earlier")
    assert do(*TINY, root=run.parents[1]).code == 0 and not (run / ".earlier").exists()
