"""A sweep on a real Slurm, one of whose jobs is preempted in mid-run: make test-slurm"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from helpers.rank_runs import on_ranks
from helpers.run_configs import TINY, do, rows_of, timeless
from helpers.run_folders import payloads
from helpers.wandb_runs import epochs, stored_in

from diffq_exp.common.files import read_json

ROOT = Path(__file__).parents[2]
EPOCHS = 60
# restart=true: the job that is queued again is asked to restart once more, and has to go on all the same
SWEEP = (*TINY, f"epochs={EPOCHS}", "tracking=wandb", "tracking.mode=offline", "seed=0,1", "restart=true")
LAUNCHER = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=local", "hydra.launcher.mem_gb=null")


def local_slurm(word: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LOCAL_SLURM_DIR": str(folder)}
    command = [ROOT / "scripts" / "local_slurm.sh", word]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """The folder of a Slurm of our own, which every user may enter, as the daemons' users have to."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    try:
        started = local_slurm("start", folder)
        assert started.returncode == 0, started.stderr
        assert started.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield folder
    finally:
        stopped = local_slurm("stop", folder)
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert local_slurm("status", folder).returncode == 1
        shutil.rmtree(folder)


def told_by(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def wait_until(true: Callable[[], bool], sweep: subprocess.Popen[bytes], seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, told_by("squeue")
        assert sweep.poll() is None, "the sweep ended early"
        time.sleep(0.05)


def job_in_mid_run(outputs: Path) -> str | None:
    """The name of a job that has reached its fifth epoch, by what submitit keeps of its output."""
    for line in told_by("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").splitlines():
        job = line.strip()
        said = outputs / ".submitit" / job / f"{job}_0_log.out"
        if said.exists() and re.search(r"^epoch +5/", said.read_text(), re.MULTILINE):
            return job
    return None


def test_it_is_there_and_starting_it_again_changes_nothing(slurm: Path) -> None:
    before = (slurm / "slurm.conf").stat().st_mtime_ns
    again, status = local_slurm("start", slurm), local_slurm("status", slurm)
    assert again.stdout == f"export SLURM_CONF={slurm}/slurm.conf\n"
    assert status.returncode == 0 and "idle" in status.stdout
    assert (slurm / "slurm.conf").stat().st_mtime_ns == before


def outputs_of_a_preempted_sweep(words: Sequence[str], folder: Path, **variables: str) -> Path:
    """Do a sweep, one job of which is preempted in the middle of its run; -> the folder of its runs."""
    command = [sys.executable, "-m", "diffq_exp.train", "-m", *LAUNCHER, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    outputs = folder / "outputs"
    with open(folder / "said", "wb") as said:
        sweep = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        wait_until(lambda: job_in_mid_run(outputs) is not None, sweep)
        job = str(job_in_mid_run(outputs))
        told_by("scancel", "--signal=USR2", job)
        wait_until(lambda: "Restarts=1" in told_by("scontrol", "show", "job", job), sweep)
        code = sweep.wait(300)
    finally:
        sweep.kill()
    assert code == 0, (folder / "said").read_text()
    return outputs


@pytest.mark.timeout(600)
def test_a_preempted_job_is_requeued_and_ends_as_one_that_was_not(slurm: Path, tmp_path: Path) -> None:
    outputs = outputs_of_a_preempted_sweep(SWEEP, tmp_path, WANDB_MODE="offline")
    folders = sorted(path for path in outputs.glob("synthetic-*"))
    logs = {folder: (folder / "train.log").read_text() for folder in folders}
    (preempted,) = [folder for folder in folders if "interrupted" in logs[folder]]
    assert len(folders) == 2 and "goes on after epoch" in logs[preempted]
    for folder in folders:
        seed = read_json(folder / "result.json")["seed"]
        alone = do(*TINY, f"epochs={EPOCHS}", f"seed={seed}", root=tmp_path / "alone")
        result = read_json(folder / "result.json")
        assert folder.name == alone.folder.name
        assert timeless(rows_of(folder)) == timeless(alone.rows)
        for key in ("status", "signature", "test", "val", "size_mb", "bits", "epochs"):
            assert result[key] == alone.result[key], key
        assert epochs(stored_in(folder)) == list(range(1, EPOCHS + 1))


@pytest.mark.timeout(600)
def test_a_job_of_two_tasks_is_preempted_and_ends_as_one_that_was_not(slurm: Path, tmp_path: Path) -> None:
    words = (*TINY, f"epochs={EPOCHS}", "tracking=none", "restart=true")
    outputs = outputs_of_a_preempted_sweep(
        ["hydra.launcher.tasks_per_node=2", *words], tmp_path, GLOO_SOCKET_IFNAME="lo"
    )
    (folder,) = outputs.glob("synthetic-*")
    said_by_run = (folder / "train.log").read_text()
    assert "interrupted" in said_by_run and "goes on after epoch" in said_by_run
    whole = on_ranks(tmp_path / "alone", *words)
    assert whole.codes == [0, 0] and folder.name == whole.run.name
    assert timeless(rows_of(folder)) == timeless(rows_of(whole.run))
    assert payloads(folder) == payloads(whole.run)


@pytest.mark.timeout(600)
def test_two_jobs_work_on_one_study(slurm: Path, tmp_path: Path) -> None:
    words = ("trials=8", "over={penalty: {low: 1, high: 100, log: true}}", "quantizer=diffq", *TINY, "epochs=20")
    command = shlex.join([sys.executable, "-m", "diffq_exp.search", *words])
    options = ("--array=1-2", "--partition=local", f"--chdir={tmp_path}", f"--export=ALL,PYTHONPATH={ROOT}")
    told_by("sbatch", "--wait", *options, "--output=%a.log", f"--wrap={command}")
    said = [(tmp_path / f"{job}.log").read_text() for job in (1, 2)]
    begun = [{*map(int, re.findall(r"^trial (\d+): penalty=", text, re.MULTILINE))} for text in said]
    assert all(begun) and set.union(*begun) == {*range(8)}, said
    assert "".join(said).count(": finished\n") == 8  # each by one job
    (sweep,) = (tmp_path / "outputs" / ".sweeps").glob("study-*.json")
    assert len(read_json(sweep)["jobs"]) == 8
    assert all(f"{sweep.stem}: 8 trials; on the front:" in text for text in said), said
