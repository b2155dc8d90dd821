"""Sweeps of tiny runs in processes of their own: what fails, dies or is done twice takes nothing else with it."""

import json
import shutil

import numpy as np
import pytest
from helpers.run_configs import TINY, do
from helpers.sweep_processes import (
    results,
    rows_by_run,
    runs,
    statuses,
    sweep,
    swept,
    times_begun,
    wait_until,
    written,
)
from helpers.wandb_fakes import read_segment
from PIL import Image

from diffq_exp.sweeps.cores import cores

pytestmark = pytest.mark.long  # tests/test_train.py has a short sweep in processes
KEEP = ("test", "val", "size_mb", "bits", "config", "choices")  # of a result: what does not depend on the day

# ---- one of each kind of failure ---------------------------------------------------------------------------------

PLAIN = ["device=cpu", "threads=1", "tracking=none", "val_fraction=0.25", "batch_size=16", "quantizer=none"]
LONG = 60  # epochs of the run that is killed


def images(folder):
    """Two classes of 8 x 8 images, one file cut short; -> that file."""
    for part, count in (("train", 8), ("test", 2)):
        for label in ("cat", "dog"):
            (folder / part / label).mkdir(parents=True)
            for index in range(count):
                noise = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(noise).save(folder / part / label / f"{index}.png")
    cut = folder / "train" / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:60])
    return cut


def five_jobs(folder):
    """An experiment of five jobs; -> the words that choose it."""
    made = dict(word.split("=") for word in TINY if word.startswith("dataset"))
    grids = [
        {**made, "epochs": 2, "seed": [0, 1]},
        {**made, "epochs": 2, "lr": 1e30},
        {**made, "epochs": LONG, "seed": 2},
        {"dataset": "image_folder", "dataset.root": "set", "dataset.cache_dir": None, "epochs": 2},
    ]
    lines = [
        "# @package _global_",
        "hydra:",
        "  mode: MULTIRUN",
        f"  sweeper: {{by: [lr], grids: {json.dumps(grids)}}}",
    ]
    (folder / "conf" / "experiment").mkdir(parents=True)
    (folder / "conf" / "experiment" / "five.yaml").write_text("\n".join(lines))
    return ["--config-dir", "conf", "experiment=five", *PLAIN, "hydra.launcher.n_jobs=2"]


def long_run(folder):
    """The folder of the run that is killed, once it has begun."""
    for run in runs(folder):
        if json.loads((run / "result.json").read_text())["config"]["epochs"] == LONG:
            return run
    return None


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """Five jobs: one diverges, one is killed, one has a corrupt image; then again, with the image mended."""
    folder = tmp_path_factory.mktemp("five")
    cut, words, told = images(folder / "set"), five_jobs(folder), []
    with sweep(folder, *words) as started:
        wait_until(lambda: len(rows_by_run(folder).get(getattr(long_run(folder), "name", None), [])) >= 3)
        started.process_of(long_run(folder)).kill()
        code = started.end()
        told.append((code, started.text, results(folder), written(folder, "finished"), rows_by_run(folder)))
    shutil.copy(cut.with_name("1.png"), cut)
    code, text = swept(folder, *words)
    told.append((code, text, results(folder), written(folder, "finished"), rows_by_run(folder)))
    return folder, told


def test_two_results_three_named_failures_and_exit_code_1(failures):
    _, [(code, text, found, *_), _] = failures
    assert code == 1 and "Traceback" not in text
    reasons = {result["status"]: result.get("reason") for result in found.values()}
    assert sorted(result["status"] for result in found.values()) == [
        "diverged", "failed", "finished", "finished", "killed",
    ]  # fmt: skip
    for status, part in {"diverged": "not finite", "failed": "0.png", "killed": "killed by SIGKILL"}.items():
        assert part in reasons[status]
    *_, count, first, second, third = text.splitlines()
    assert count.startswith(f"sweep five-{count.split('-')[1][:8]}: 2 finished, ")
    for line, status in zip((first, second, third), ("diverged", "killed", "failed"), strict=True):
        assert line.startswith(f"{status}: ") and line.endswith(reasons[status])


def test_the_same_command_does_the_killed_and_the_failed_again_and_nothing_else(failures):
    _, [(_, _, before, finished, rows), (code, text, after, finished_now, rows_now)] = failures
    assert code == 1 and "5 jobs, 3 done already" in text
    diverged = [name for name, result in after.items() if result["status"] != "finished"]
    assert len(after) == 5 and [after[name] for name in diverged] == [before[name] for name in diverged]
    assert text.splitlines()[-1].startswith("diverged: ") and "killed" not in text.splitlines()[-2]
    assert finished.items() <= finished_now.items()
    (killed,) = [name for name, result in before.items() if result["status"] == "killed"]
    saved = rows[killed][:-1]  # the last row may be ahead of the checkpoint
    assert saved and len(rows_now[killed]) == LONG and rows_now[killed][: len(saved)] == saved


def test_the_methods_of_the_report_are_told_apart_as_the_experiment_says(failures):
    folder, _ = failures
    (record,) = (folder / "outputs" / ".sweeps").glob("five-*.json")
    assert json.loads(record.read_text())["by"] == ["lr"]


def test_a_jobs_own_log_says_what_happened(failures):
    folder, _ = failures
    for name, result in results(folder).items():
        log = (folder / "outputs" / name / "train.log").read_text()
        assert ("finished" if result["status"] == "finished" else result["reason"]) in log


def test_a_report_that_breaks_does_not_matter(failures):
    _, told = failures
    assert all("no report: ImportError: no ink" in text for _, text, *_ in told)


# ---- the machine goes down ---------------------------------------------------------------------------------------

FOUR = [*TINY, "threads=null", "quantizer=ptq,qat", "bits=2,4", "hydra.launcher.n_jobs=2"]
ALL = [*FOUR, "tracking=wandb", "tracking.mode=offline"]
THREADS = str(2 * cores())


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """A sweep with its report, in W&B's offline mode; torch would take twice the cores in each process."""
    folder = tmp_path_factory.mktemp("whole")
    home = {"HOME": str(folder), "OMP_NUM_THREADS": THREADS}
    code, text = swept(folder, *ALL, report=True, **home)
    assert code == 0, text
    return folder, text


def table(folder):
    """What the report says, below the command."""
    (file,) = (folder / "outputs" / "report").glob("*/table.md")
    return file.read_text().partition("## ")[2]


def test_killed_half_way_and_started_again_it_comes_to_the_same(never_stopped, tmp_path):
    whole, _ = never_stopped
    with sweep(tmp_path, *FOUR, OMP_NUM_THREADS=THREADS) as started:
        wait_until(lambda: len(written(tmp_path, "finished")) >= 2)
        started.kill()
    before = written(tmp_path, "finished")
    assert 2 <= len(before) < 5
    code, text = swept(tmp_path, *FOUR, OMP_NUM_THREADS=THREADS)
    assert code == 0 and "4 finished" in text
    assert before.items() <= written(tmp_path, "finished").items()
    ours, theirs = results(tmp_path), results(whole)
    assert ours.keys() == theirs.keys() and len(ours) == 5  # with the float32 network
    for name in ours:
        assert {key: ours[name].get(key) for key in KEEP} == {key: theirs[name].get(key) for key in KEEP}
        stored = [folder / "outputs" / name / "model.safetensors" for folder in (tmp_path, whole)]
        assert stored[0].read_bytes() == stored[1].read_bytes()
    assert table(tmp_path) == table(whole)


def test_jobs_share_one_float32_network(never_stopped):
    folder, _ = never_stopped
    begun = times_begun(folder)
    assert {name.split("-")[2]: count for name, count in begun.items()} == {"none": 1, "qat": 1, "ptq": 0}


def test_threads_are_divided_among_the_jobs(never_stopped):
    folder, _ = never_stopped
    assert {result["hardware"]["threads"] for result in results(folder).values()} == {max(1, cores() // 2)}


def test_the_report_is_there_at_the_end(never_stopped):
    folder, text = never_stopped
    (record,) = (folder / "outputs" / ".sweeps").iterdir()
    files = {path.name for path in (folder / "outputs" / "report" / record.stem).iterdir()}
    assert {"index.html", "pareto.png", "pareto.svg", "runs.csv", "table.md", "table.tex"} <= files
    assert "no report" not in text and f"sweep {record.stem}: 4 finished" in text.splitlines()[-1]


def test_runs_in_wandb_share_their_group_and_no_folder(never_stopped):
    folder, _ = never_stopped
    (record,) = (folder / "outputs" / ".sweeps").iterdir()
    for run in runs(folder):
        (segment,) = (run / "wandb").glob("offline-run-*")
        stored = read_segment(segment)
        assert stored.run.run_group == record.stem and list(stored.run.tags) == ["sweep"]
        assert stored.run.display_name == run.name and stored.exit_code == 0
    assert not (folder / "wandb").exists()


# ---- work that is shared -----------------------------------------------------------------------------------------


def test_sweeps_side_by_side_do_each_run_once_and_take_what_was_done_before(tmp_path):
    words = [*TINY, "quantizer=ptq,qat", "bits=2,4", "hydra.launcher.n_jobs=2"]
    alone = do(*TINY, "quantizer=qat", "bits=4", root=tmp_path)
    before = alone.result
    with sweep(tmp_path, *words) as one, sweep(tmp_path, *words) as other:
        assert (one.end(), other.end()) == (0, 0)
        for started in (one, other):
            assert "4 jobs, 1 done already" in started.text and ": 4 finished" in started.text.splitlines()[-1]
            assert "Traceback" not in started.text
    assert sorted(times_begun(tmp_path).values()) == [0, 0, 1, 1, 1]  # ptq has no epochs of its own
    assert alone.result == before
    again = do(*TINY, "quantizer=ptq", "bits=2", root=tmp_path)
    assert again.code == 0 and "is finished already" in again.text


def test_a_quantized_run_names_the_float32_network_that_diverged(tmp_path):
    outcome = do(*TINY, "quantizer=ptq", "lr=1e30", root=tmp_path)
    (source,) = (tmp_path / "outputs").glob("*-none-*")
    assert outcome.code == 1 and statuses(tmp_path) == ["diverged", "failed"]
    assert outcome.result["reason"] == f"its float32 network, {source}, did not finish"


def test_restart_does_again_what_is_finished_and_what_waited_for_another_job(tmp_path, monkeypatch):
    """The PTQ finds its float32 network at work; that the network is finished then does not finish the PTQ.

    What a network prints is in its log.
    """
    loud = "def net(**sizes):\n    print('built')\n    return digits_cnn(**sizes)\n"
    (tmp_path / "no_ink").mkdir()
    (tmp_path / "no_ink" / "loud.py").write_text(f"from diffq_exp.models import digits_cnn\n{loud}")
    monkeypatch.syspath_prepend(tmp_path / "no_ink")
    words = [*TINY, "model._target_=loud.net", "seed=0", "min_size=0"]
    for quantizer in ("none", "ptq"):
        assert do(*words, f"quantizer={quantizer}", root=tmp_path).code == 0
    before, made = results(tmp_path), written(tmp_path, "finished")
    code, text = swept(tmp_path, *words, "quantizer=none,ptq", "hydra.launcher.n_jobs=2", "restart=true")
    assert code == 0 and text.splitlines()[-1].split(": ")[1].startswith("2 finished") and "built" not in text
    after, made_now = results(tmp_path), written(tmp_path, "finished")
    assert before.keys() == after.keys() and len(made) == 2
    for run, result in after.items():
        assert made_now[run] > made[run] and result["run_id"] != before[run]["run_id"]
        assert result["test"] == before[run]["test"]
        assert "built" in (tmp_path / "outputs" / run / "train.log").read_text()
