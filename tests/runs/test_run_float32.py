"""The word float32 for another network: the float32 run of this configuration, trained first if it is missing."""

import shutil

import pytest
import torch
from helpers.run_configs import TINY, ask, do
from helpers.run_folders import content
from helpers.run_signals import interrupt_at

from diffq_exp import load_model
from diffq_exp.command.compose import composer
from diffq_exp.command.consistency import consistency_errors
from diffq_exp.quant.compiled import NEEDED
from diffq_exp.results.records import read_record

pytestmark = pytest.mark.usefixtures("same_commit")

ALL = (
    "quantizer=rate",
    "penalty=100",
    "teacher=float32",
    "average_decay=0.9",
    "batch_norm_batches=2",
    "storage.fold=true",
    "storage.float=int8",
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run with everything that a run can have."""
    return do(*TINY, *ALL, root=tmp_path_factory.mktemp("taught"))


def source_of(outcome):
    (source,) = [path for path in outcome.folder.parent.iterdir() if "-none-" in path.name]
    return source


def source_of_mb(outcome):
    return read_record(source_of(outcome)).size_mb["file"]


def test_the_teacher_is_trained_first_and_is_a_run_as_any_other(taught, monkeypatch):
    assert taught.code == 0 and taught.result["status"] == "finished"
    source, record = source_of(taught), read_record(source_of(taught))
    assert record.status == "finished" and record.size_mb["file"] > 0.5
    monkeypatch.chdir(taught.folder.parents[1])
    assert ask(*record.overrides).folder.name == source.name
    assert "teacher=null" in record.overrides and "storage.float=float32" in record.overrides
    assert taught.result["config"]["teacher"] == "float32"


def test_the_file_is_folded_and_small(taught):
    model = load_model(taught.folder)
    assert torch.equal(model.norm1.running_mean, torch.zeros(32))
    assert taught.result["size_mb"]["file"] < source_of_mb(taught) / 4


def test_the_name_of_a_run_does_not_depend_on_whether_its_teacher_is_there(taught, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ask(*TINY, *ALL).folder.name
    assert folder == taught.folder.name
    typed = [word for word in ALL if not word.startswith("teacher")]
    assert ask(*TINY, *typed, f"teacher={source_of(taught)}").folder.name == folder
    assert ask(*TINY, *typed, "teacher=float32", "teacher_weight=0.3").folder.name != folder
    assert ask(*TINY, *typed, "teacher_weight=0.3").folder.name == ask(*TINY, *typed).folder.name


def test_a_float32_run_with_settings_of_its_own(tmp_path):
    words = (*TINY, "quantizer=qat", "epochs=1")
    outcome = do(*words, "teacher=float32", 'float32=["epochs=2","task.label_smoothing=0.1"]', root=tmp_path)
    source = read_record(source_of(outcome))
    assert outcome.code == 0 and outcome.result["epochs"] == 1 and source.epochs == 2
    again = do(*words, f"teacher={source_of(outcome)}", root=tmp_path)
    assert again.folder == outcome.folder and "finished already" in again.lines[0]


def test_a_run_starts_from_its_float32_run(tmp_path):
    source = do(*TINY, "quantizer=none", root=tmp_path)
    before = content(source.folder)
    outcome = do(*TINY, "quantizer=lsq", "bits=8", "init_from=float32", root=tmp_path)
    assert outcome.code == 0 and outcome.result["config"]["init_from"] == "float32"
    assert content(source.folder) == before
    assert outcome.rows[1]["train"]["loss"] < source.rows[1]["train"]["loss"]
    again = do(*TINY, "quantizer=lsq", "bits=8", f"init_from={source.folder}", root=tmp_path)
    assert again.code == 0 and again.folder == outcome.folder and "finished already" in again.lines[0]


def test_a_teacher_that_is_missing_is_refused_before_anything_is_written(tmp_path):
    missing = tmp_path / "nothing"
    (error,) = consistency_errors(composer()([*TINY, f"teacher={missing}"]))
    assert error == f"teacher={missing}: no such run folder or file; float32 means the float32 run of this one"


def test_a_folded_file_is_no_start_for_training(taught, tmp_path):
    source = taught.folder / "model.safetensors"
    outcome = do(*TINY, "quantizer=qat", f"init_from={source}", root=tmp_path)
    assert outcome.code == 2
    assert outcome.result["reason"].startswith(f"{source}: its batch norms are folded")


def test_a_finished_run_does_not_need_its_float32_run_again(taught, tmp_path):
    shutil.copytree(taught.folder, tmp_path / "outputs" / taught.folder.name)
    again = do(*TINY, *ALL, root=tmp_path)
    assert again.code == 0 and "finished already" in again.lines[0]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [taught.folder.name]


def test_a_fold_of_false_is_none():
    assert (
        ask(*TINY, "storage.fold=false").folder.name
        == ask(*TINY).folder.name
        != ask(*TINY, "storage.fold=true").folder.name
    )


def test_interrupted_it_ends_with_the_same_bytes(taught, tmp_path, monkeypatch):
    do(*TINY, *ALL, "quantizer=none", "teacher=null", "storage.fold=null", "storage.float=float32", root=tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, 15)
        assert do(*TINY, *ALL, root=tmp_path).code == 143
    again = do(*TINY, *ALL, root=tmp_path)
    assert again.code == 0
    assert (again.folder / "model.safetensors").read_bytes() == (taught.folder / "model.safetensors").read_bytes()


@pytest.mark.filterwarnings("ignore", "error:an optimizer steps:UserWarning")
def test_a_compiled_run_sees_its_quantizer_after_a_compiled_float32_run(tmp_path, monkeypatch):
    """Both networks are of one class, and compiled in one process."""
    compile_with, ends = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend="eager"))
    torch._dynamo.reset()
    config = torch._dynamo.config
    with config.patch({name: not value for name, value in NEEDED.items() if hasattr(config, name)}):
        for compiled in ("true", "false"):
            words = (*TINY, "quantizer=qat", "bits=3", "min_size=0", "teacher=float32", f"compile={compiled}")
            outcome = do(*words, root=tmp_path)
            assert outcome.code == 0
            ends.append([row["train"]["loss"] for row in outcome.rows])
    torch._dynamo.reset()
    assert ends[0] == pytest.approx(ends[1], rel=1e-4)
