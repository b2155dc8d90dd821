"""Which rank a process is, by the variables of those who start ranks."""

import pytest

from diffq_exp.command.check import check
from diffq_exp.parallel.place import Place, is_tried_again, meeting_point, place_of, places, why_not_anew

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_who_starts_ranks():
    assert place_of({}) == Place(0, 1, 0, 1)
    assert place_of(TORCHRUN) == Place(5, 8, 1, 4)
    assert place_of(SLURM) == Place(3, 4, 1, 2)
    assert place_of({**SLURM, **TORCHRUN}) == Place(5, 8, 1, 4)  # torchrun inside a job
    assert place_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}) == Place()  # the script of a job, no step
    local = {"SUBMITIT_LOCAL_GLOBALRANK": "1", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_LOCALID": "1"}
    assert place_of(local) == Place(1, 2, 1, 2)


def test_what_is_started_again_does_not_begin_anew():
    for count in ({}, {"SLURM_RESTART_COUNT": "0"}, {"TORCHELASTIC_RESTART_COUNT": ""}):
        assert why_not_anew(count) == ""
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        told = why_not_anew({name: "2"})
        assert told.startswith(f"restart=true is not followed: {name}=2 says") and told.endswith(f"unset {name}")


def test_what_torchrun_starts_again():
    counts = [("0", "3", True), ("3", "3", False), ("0", "0", False)]
    for count, most, again in counts:
        names = {"TORCHELASTIC_RESTART_COUNT": count, "TORCHELASTIC_MAX_RESTARTS": most}
        assert is_tried_again(names) == again
    assert not is_tried_again({})


def test_ranks_of_a_job_meet_at_the_same_place():
    job = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0"}
    first, second = meeting_point(job), meeting_point({**job, "SLURM_PROCID": "1"})
    assert first == second and first["MASTER_ADDR"] == "127.0.0.1" and 20000 <= int(first["MASTER_PORT"]) < 40000
    assert meeting_point({**job, "SLURM_JOB_ID": "4712"}) != first
    chosen = {"MASTER_ADDR": "host", "MASTER_PORT": "1"}
    assert meeting_point({**job, **chosen}) == chosen


def test_places_are_those_of_torchrun():
    assert places(1) == [{}]
    assert [place_of(place) for place in places(2)] == [Place(0, 2, 0, 2), Place(1, 2, 1, 2)]
    assert len({place["MASTER_PORT"] for place in places(2)}) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["batch_size=15"], "batch_size=15: of all ranks together; must be a multiple of their number, 8"),
        (["batch_size=8"], "batch_size=8: 8 ranks need 2 examples each, 16 together"),
        (["-m", "seed=0,1"], "a sweep: 8 ranks do one run"),
        (["parallel=fsdp"], "parallel=fsdp: fully_shard leaves each rank a slice of a weight"),
    ],
)
def test_what_ranks_cannot_do_is_one_line(words, error, monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    (line,) = check(words).errors
    assert line.startswith(error)


def test_the_launcher_of_a_sweep_has_ranks_too():
    (line,) = check(["-m", "seed=0,1", "batch_size=9", "hydra.launcher.gpus_per_job=2"]).errors
    assert line.startswith("batch_size=9")
    assert not check(["-m", "seed=0,1", "batch_size=8", "hydra.launcher.gpus_per_job=2"]).errors


def test_keys_of_ranks_leave_signatures_alone():
    (plain,), (shared,) = check([]).jobs, check(["parallel=ddp", "sync_batch_norm=false"]).jobs
    (other,) = check(["sync_batch_norm=true"]).jobs
    assert plain.signature == shared.signature != other.signature
