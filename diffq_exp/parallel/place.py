"""Which process of a run this one is, by the variables of torchrun, Slurm or submitit. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
SUBMITIT = ("SUBMITIT_LOCAL_GLOBALRANK", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID")
LEAST = 2  # examples of a batch for a rank: batch norm cannot train on a single one
PORTS = 20000, 20000  # of Slurm's jobs: the first, and how many


@dataclass(frozen=True)
class Place:
    """rank of `world` processes in all, local_rank of `local_world` on this machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place_of(environment: Mapping[str, str] = os.environ) -> Place:
    """torchrun's variables, else those of a Slurm step (srun), of a local job of submitit, or a process alone."""
    for names in (TORCHRUN, SLURM, SUBMITIT):
        if all(name in environment for name in names[:3]):
            rank, world, local_rank = (int(environment[name]) for name in names[:3])
            local_world = _first_number(environment.get(names[-1], "")) if len(names) > 3 else world
            return Place(rank, world, local_rank, local_world or world)
    return Place()


def why_not_anew(environment: Mapping[str, str] = os.environ) -> str:
    """Why restart=true does not begin anew in a process that Slurm or torchrun started again; "" where it does."""
    for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        if count := _first_number(environment.get(name, "")):
            told = f"{name}={count} says that this job was started again, and it goes on with what it began"
            return f"restart=true is not followed: {told}; to begin anew, unset {name}"
    return ""


def is_tried_again(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun starts a run again that fails now: it is then gone on with."""
    again, most = (environment.get(f"TORCHELASTIC_{name}", "") for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return _first_number(again) < _first_number(most)


def _first_number(text: str) -> int:
    """Of `2(x3),1`, as Slurm lists its tasks per node, or of a plain number."""
    return int(text.partition(",")[0].partition("(")[0] or 0)


def places(world: int) -> list[dict[str, str]]:
    """The variables for each process of a run on this machine, as torchrun sets them; none for one alone."""
    if world == 1:
        return [{}]
    from socket import socket  # here, for commands that need none of this

    with socket() as found:
        found.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [{**shared, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def meeting_point(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which torch.distributed finds the other ranks, where Slurm has not set them."""
    job = int(environment.get("SLURM_JOB_ID") or environment.get("SUBMITIT_LOCAL_JOB_ID") or 0)
    host = "127.0.0.1"
    if int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1:
        import subprocess

        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
        host = listed.stdout.split()[0]
    first, ports = PORTS
    port = first + (job + 7919 * int(environment.get("SLURM_STEP_ID", 0))) % ports
    wanted = {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    return {name: environment.get(name, value) for name, value in wanted.items()}


def ranks_error(cfg: Mapping[str, Any], world: int) -> str | None:
    """Why a configuration cannot be carried out by so many ranks; None where it can."""
    if world == 1:
        return None
    if cfg["batch_size"] % world:
        return f"batch_size={cfg['batch_size']}: of all ranks together; must be a multiple of their number, {world}"
    if cfg["batch_size"] < LEAST * world:
        return f"batch_size={cfg['batch_size']}: {world} ranks need {LEAST} examples each, {LEAST * world} together"
    return "device=mps: ranks compute on cpu or cuda" if cfg["device"] == "mps" else None
