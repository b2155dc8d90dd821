"""Who starts ranks: torchrun, and the launchers of sweeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.run_configs import TINY, rows_of

from diffq_exp.common.files import read_json

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    with open(folder / "said.txt", "w") as said:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdout=said, stderr=said, text=True
        )


def kill_rank(parent: int, rank: str, folder: Path) -> None:
    """SIGKILL, after the third checkpoint."""
    until, seen = time.monotonic() + 240, set[int]()
    while len(seen) < 3 and time.monotonic() < until:
        seen |= {path.stat().st_mtime_ns for path in folder.glob("outputs/*/checkpoint.pt")}
        time.sleep(0.01)
    ranks = [child for child in psutil.Process(parent).children() if child.environ().get("RANK") == rank]
    ranks[0].send_signal(signal.SIGKILL)


@pytest.mark.long
def test_torchrun_starts_a_killed_rank_again_where_the_run_stopped(tmp_path):
    run = start(
        tmp_path, *TORCHRUN, "--max-restarts=1", "-m", "diffq_exp.train", *TINY, "epochs=60", "restart=true"
    )
    try:
        kill_rank(run.pid, "1", tmp_path)
        assert run.wait(240) == 0, (tmp_path / "said.txt").read_text()
    finally:
        run.kill()
    said = (tmp_path / "said.txt").read_text()
    (folder,) = (tmp_path / "outputs").iterdir()
    assert said.count("failed: another rank has ended without a word") == 1 and "goes on after epoch" in said
    assert read_json(folder / "result.json")["status"] == "finished" and len(rows_of(folder)) == 60


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra.launcher.gpus_per_job=2", "hydra.launcher.n_jobs=1"),
        ("hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"),
    ],
    ids=["processes", "submitit"],
)
def test_a_sweep_starts_ranks_for_each_run(tmp_path, launcher):
    if "submitit" in launcher[0]:
        pytest.importorskip("submitit")
    sweep = start(tmp_path, "-m", "diffq_exp.train", "-m", *TINY, "seed=0,1", "restart=true", *launcher)
    try:
        assert sweep.wait(280) == 0, (tmp_path / "said.txt").read_text()
    finally:
        sweep.kill()
    folders = [path for path in (tmp_path / "outputs").glob("synthetic-*") if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        assert read_json(folder / "result.json")["status"] == "finished" and len(rows_of(folder)) == 2
        assert (folder / "train.log").read_text().count("epoch 2/2") == 1
