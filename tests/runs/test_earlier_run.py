"""A run that is set aside: whenever the process is killed, the run that went further is there, whole."""

import itertools
import json

import pytest
from file_operations import Operations

from diffq_exp.results.records import RunRecord
from diffq_exp.runs.earlier_run import bring_back, drop_earlier, set_aside
from diffq_exp.runs.run_folder import RunFolder

LEFT = {  # by a run of each status, besides its record
    "failed": [".hydra/config.yaml"],
    "interrupted": [".hydra/config.yaml", "metrics.jsonl", "checkpoint.pt"],
    "finished": [".hydra/config.yaml", "metrics.jsonl", "checkpoint.pt", "model.safetensors"],
}
STATES = ("none", *LEFT)  # from the least to the most worth


class Killed(BaseException):
    """Nothing is cleared up."""


def killed():
    raise Killed


def leave(folder, status, mark):
    """What a run leaves; each file has the mark. "none": nothing."""
    if status == "none":
        return
    (folder / ".hydra").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": status, "signature": "aaaa", "reason": mark}))
    for name in (*LEFT[status], "train.log"):
        (folder / name).write_text(mark)


def made(folder, here, earlier):
    leave(folder, here, "here")
    leave(folder / ".earlier", earlier, "earlier")
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    return folder


def whole(folder):
    """The mark of the run in a folder, None without one. Its files belong together."""
    if not (folder / "result.json").exists():
        return None
    record = json.loads((folder / "result.json").read_text())
    names = LEFT[record["status"]]
    marks = {(folder / name).read_text() for name in names if (folder / name).exists()}
    assert marks <= {record["reason"]}
    return record["reason"] if len([name for name in names if (folder / name).exists()]) == len(names) else "part"


def further(here, earlier):
    """Which of the two runs must not be lost."""
    if here == earlier == "none":
        return None
    return "earlier" if STATES.index(earlier) > STATES.index(here) else "here"


@pytest.mark.parametrize(("here", "earlier"), list(itertools.product(STATES, STATES)))
def test_killed_before_each_operation(here, earlier, tmp_path):
    """set_aside is killed, the folder entered, and set_aside done again: a restart of a restart."""
    kept = further(here, earlier)
    with Operations(made(tmp_path / "whole", here, earlier)) as operations:
        set_aside(tmp_path / "whole")
    assert kept is None or len(operations.seen) > 1
    for point in range(1, len(operations.seen) + 1):
        folder = made(tmp_path / str(point), here, earlier)
        with pytest.raises(Killed), Operations(folder, point, killed):
            set_aside(folder)
        with RunFolder(folder, "aaaa") as held:
            assert kept is None or kept in (whole(folder), whole(folder / ".earlier")), operations.seen[point - 1]
            set_aside(folder)
            assert held.record() == RunRecord() and whole(folder / ".earlier") == kept
        left = {path.name for path in folder.iterdir()}
        assert left - {"train.log"} == {"notes.txt", ".lock"} | ({".earlier"} if kept else set())
        assert not (folder / "train.log").exists() or (folder / "train.log").read_bytes() == b""


@pytest.mark.parametrize(("here", "earlier"), list(itertools.product(STATES, STATES)))
def test_the_run_that_went_further_is_back_where_the_new_one_has_not_trained(here, earlier, tmp_path):
    folder = made(tmp_path, here, earlier)
    back = STATES.index(here) < STATES.index("interrupted") and STATES.index(earlier) > STATES.index(here)
    assert bring_back(folder) == back
    assert whole(folder) == ("earlier" if back else None if here == "none" else "here")
    assert (folder / ".earlier").exists() == (earlier != "none" and not back)
    if back:
        assert (folder / "train.log").read_text() == "earlier" + "here" * (here != "none")
        assert {path.name for path in folder.iterdir()} == {
            "notes.txt", "result.json", "train.log", *(name.partition("/")[0] for name in LEFT[earlier])
        }  # fmt: skip


@pytest.mark.parametrize("change", [drop_earlier, bring_back])
def test_the_way_back_is_killed_before_each_operation(change, tmp_path):
    here = "finished" if change is drop_earlier else "failed"
    with Operations(made(tmp_path / "whole", here, "finished")) as operations:
        change(tmp_path / "whole")
    for point in range(1, len(operations.seen) + 1):
        folder = made(tmp_path / str(point), here, "finished")
        with pytest.raises(Killed), Operations(folder, point, killed):
            change(folder)
        with RunFolder(folder, "aaaa"):
            change(folder)
            assert whole(folder) == ("here" if change is drop_earlier else "earlier")
            assert {path.name for path in folder.iterdir()} & {".earlier", ".aside", ".earlier.partial"} == set()


def test_what_is_set_aside_is_all_that_a_run_leaves(tmp_path):
    folder = made(tmp_path / "run", "finished", "none")
    (folder / "wandb").mkdir()
    set_aside(folder)
    assert {path.name for path in folder.iterdir()} == {".earlier", "notes.txt", "train.log"}
    assert len(list((folder / ".earlier").iterdir())) == 7 and whole(folder / ".earlier") == "here"


def test_a_log_that_a_job_has_open_goes_on(tmp_path):
    folder = made(tmp_path / "run", "finished", "none")
    with open(folder / "train.log", "ab") as log:
        set_aside(folder)
        log.write(b"new")
    assert (folder / "train.log").read_text() == "new" and (folder / ".earlier" / "train.log").read_text() == "here"
