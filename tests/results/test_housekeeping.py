"""A folder is deleted only after a yes, only if it is a run's, and only if no process works in it."""

import json
import os
import time

import pytest
from filelock import FileLock
from helpers.made_runs import COMMIT, TEXT, made_run

from diffq_exp.results.commit import git_state
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.housekeeping import bytes_below, leftovers, list_table, prune

HEAD = "f" * 40


def pruned(outputs, answer=lambda question: True, head=HEAD):
    """The lines and the questions of `prune`, and the bytes that it freed."""
    said, questions = [], []

    def ask(question):
        questions.append(question)
        return answer(question)

    freed = prune([*find_runs([outputs]), *leftovers(outputs)], head, ask, said.append)
    return freed, said, questions


@pytest.fixture
def outputs(tmp_path):
    """A run of each status; `current` is finished at the checkout's commit."""
    for number, status in enumerate(("interrupted", "running", "failed", "diverged", "finished")):
        folder = made_run(tmp_path, [f"seed={number}"], status)
        (folder / "checkpoint.pt").write_bytes(bytes(2**18))
        folder.rename(tmp_path / status)
    made_run(tmp_path, ["seed=9"], commit=HEAD).rename(tmp_path / "current")
    return tmp_path


def left(outputs):
    return {path.name for path in outputs.iterdir()}


ALL = {"interrupted", "running", "failed", "diverged", "finished", "current"}


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("unfinished", {"interrupted", "running"}),
        ("failed", {"failed", "diverged"}),
        ("superseded", {"finished"}),
        ("nothing", set()),
    ],
)
def test_a_yes_deletes_its_kind_only(outputs, kind, gone):
    sizes = sum(bytes_below(outputs / name) for name in gone)
    freed, said, questions = pruned(outputs, lambda question: kind in question)
    assert left(outputs) == ALL - gone
    assert freed == sizes and said[-1] == f"{sizes / 2**20:.1f} MB freed"
    assert [question.split(",")[0] for question in questions] == [
        "delete 2 unfinished runs", "delete 2 failed runs", "delete 1 superseded runs",
    ]  # fmt: skip
    assert all(str(outputs / name) in " ".join(said) for name in ALL - {"current"})  # listed before


def test_without_a_checkout_nothing_is_superseded(outputs):
    pruned(outputs, head=None)
    assert left(outputs) == {"finished", "current"}


def test_a_run_that_is_held_stays(outputs):
    with FileLock(outputs / "failed" / ".lock"), FileLock(outputs / "running" / ".lock"):
        _, said, _ = pruned(outputs)
        assert left(outputs) == {"failed", "running", "current"}
    assert any("failed" in line and "another process" in line for line in said)
    assert (outputs / "failed" / "checkpoint.pt").exists()


@pytest.mark.parametrize("change", ["finished", "notes"])
def test_a_run_that_changed_while_the_question_stood_stays(outputs, change):
    def meanwhile(question):
        result = json.loads((outputs / "failed" / "result.json").read_text())
        if "failed" not in question:
            return True
        if change == "finished":
            (outputs / "failed" / "result.json").write_text(json.dumps({**result, "status": "finished"}))
        else:
            (outputs / "failed" / "notes.txt").touch()
        return True

    _, said, _ = pruned(outputs, meanwhile)
    assert left(outputs) == {"failed", "current"} and any("in the meantime" in line for line in said)


def test_a_folder_with_somebodys_own_files_stays(outputs):
    (outputs / "failed" / "notes.txt").touch()
    _, said, _ = pruned(outputs)
    assert left(outputs) == {"failed", "current"}
    assert any("kept" in line and "notes.txt" in line for line in said)


@pytest.mark.parametrize("place", [".earlier", ".aside"])
def test_the_last_finished_run_stays_where_it_was_set_aside(outputs, place):
    for name in ("interrupted", "running", "failed", "finished"):
        made_run(outputs, ["seed=7"]).rename(outputs / name / place)
    made_run(outputs, ["seed=7"], "interrupted").rename(outputs / "diverged" / place)
    _, said, _ = pruned(outputs)
    assert left(outputs) == {"interrupted", "running", "failed", "current"}
    assert (
        sum(f"(the finished run that restart=true has set aside is in its {place})" in line for line in said) == 3
    )


def test_a_job_without_a_result_keeps_what_was_set_aside(tmp_path):
    name = "digits-cnn-qat-aaaaaaaaaa"
    made_run(tmp_path / name, ["seed=7"]).rename(tmp_path / name / ".aside")
    jobs = [{"folder": name, "signature": name[-10:], "overrides": []}]
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps" / "s.json").write_text(json.dumps({"name": "s", "command": "", "jobs": jobs}))
    pruned(tmp_path)
    assert left(tmp_path) == {".sweeps", name}


def test_links_are_not_followed(outputs, tmp_path_factory):
    precious = tmp_path_factory.mktemp("precious")
    (precious / "thesis.tex").touch()
    made_run(precious, ["seed=77"], "failed")
    (outputs / "failed" / "wandb").symlink_to(precious, target_is_directory=True)
    (outputs / "linked").symlink_to(precious, target_is_directory=True)
    pruned(outputs)
    assert (precious / "thesis.tex").exists() and len(list(precious.iterdir())) == 2
    assert left(outputs) == {"linked", "current"}


def test_a_result_of_something_else_is_not_ours(tmp_path):
    (tmp_path / "benchmark").mkdir()
    (tmp_path / "benchmark" / "result.json").write_text('{"status": "failed"}')
    pruned(tmp_path)
    assert left(tmp_path) == {"benchmark"}


def test_what_a_sweep_began_and_left_without_a_result(tmp_path):
    """A folder that a record names is deleted; others without a result are not, nor what a record must not name."""
    names = ["digits-cnn-qat-aaaaaaaaaa", "digits-cnn-qat-bbbbbbbbbb", "home", "digits-cnn-qat-cccccccccc"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    (tmp_path / names[3] / "mine.txt").touch()
    jobs = [{"folder": name, "signature": name[-10:], "overrides": []} for name in (names[0], names[3])]
    jobs.append({"folder": "home", "signature": "dddddddddd", "overrides": []})
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps" / "s.json").write_text(json.dumps({"name": "s", "command": "", "jobs": jobs}))
    (tmp_path / ".sweeps" / "damaged.json").write_text("{")
    pruned(tmp_path)
    assert left(tmp_path) == {".sweeps", *names[1:]}


def test_the_list_has_a_line_for_each(outputs):
    made_run(outputs, ["seed=5"], git_dirty=True).rename(outputs / "dirty")
    (outputs / "failed" / "result.json").write_text("{")
    os.utime(outputs / "finished" / "result.json", (time.time() - 7300,) * 2)
    table = list_table(find_runs([outputs]))
    rows = {row[0].rsplit("/")[-1]: row[2:] for row in table.rows}
    assert set(rows) == {*ALL, "dirty"}
    assert [rows["finished"][column] for column in (0, 4, 5, 6)] == ["finished", "0.3", "2 h", COMMIT[:7]]
    assert rows["dirty"][6] == f"{COMMIT[:7]}*"
    assert rows["running"][0] == "killed" and rows["failed"][0] == "unreadable"
    assert rows["failed"][1:4] == ["-", "-", "-"]


def test_the_list_says_where_runs_of_the_same_kind_differ(tmp_path):
    for words in (["quantizer=qat", "bits=3"], ["quantizer=qat", "bits=4"], ["quantizer=qat", "bits=4", "seed=1"]):
        made_run(tmp_path, words)
    made_run(tmp_path, ["quantizer=diffq", "penalty=3"])
    table = list_table(find_runs([tmp_path]))
    values = sorted(row[1] for row in table.rows)
    assert table.header[1] == "values" and values == ["-", "seed=0 bits=3", "seed=0 bits=4", "seed=1 bits=4"]


def test_the_list_of_several_headlines_has_their_units(outputs, tmp_path):
    made_run(tmp_path / "text", TEXT, bits_per_byte=2.5)
    table = list_table(find_runs([tmp_path / "text"]))
    assert table.header[3] == "bits per byte" and table.rows[0][3] == "2.5000"
    both = list_table(find_runs([outputs, tmp_path / "text"]))
    scores = {row[3] for row in both.rows}
    assert both.header[3] == "score" and "2.5000 bits per byte" in scores and "-" in scores
    assert any(score.endswith(" %") for score in scores)


def test_head_is_that_of_the_checkout():
    head, _ = git_state()
    assert head is None or len(head) == 40
