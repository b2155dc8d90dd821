"""scripts/wandb_sweep.yaml, handed by a server that acts as W&B's to a real `wandb agent`, and its parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.run_configs import TINY
from helpers.wandb_fakes import Server

from diffq_exp.command.check import check
from diffq_exp.command.schema import PLAIN, conf_dir

REPOSITORY = Path(__file__).parents[2]
SWEEP: dict[str, Any] = yaml.safe_load((REPOSITORY / "scripts" / "wandb_sweep.yaml").read_text())
PARAMETERS: dict[str, dict[str, Any]] = SWEEP["parameters"]
TRIAL = {"penalty": 1e-05, "lr": 0.0123456789, "group_size": 4, "noise": "uniform"}  # floats as Python writes them


def extremes(parameter: dict[str, Any]) -> list[Any]:
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def trial(run_id: str, **values: Any) -> dict[str, Any]:
    """A command of W&B's server to an agent."""
    args = {key: {"value": value} for key, value in values.items()}
    return {"type": "run", "run_id": run_id, "program": SWEEP["program"], "args": args}


# ---- the file -----------------------------------------------------------------------------------------------


def test_its_keys_are_those_of_wandb():
    """Checked once with W&B's own schema too (the package `sweeps` 0.3, which wants numpy 1): no violations."""
    assert set(SWEEP) == {"project", "name", "program", "command", "method", "metric", "parameters"}
    assert (SWEEP["method"], SWEEP["metric"]) == ("bayes", {"name": "val/accuracy", "goal": "maximize"})
    for parameter in PARAMETERS.values():
        if "values" in parameter:
            assert set(parameter) == {"values"} and len(parameter["values"]) > 1
        else:
            assert set(parameter) == {"distribution", "min", "max"}
            assert parameter["distribution"] == "log_uniform_values"
            assert isinstance(parameter["min"], float) and 0 < parameter["min"] < parameter["max"]


def test_every_parameter_is_a_key_and_its_extremes_are_allowed():
    assert set(PARAMETERS) <= set(PLAIN)
    for name, parameter in PARAMETERS.items():
        for value in extremes(parameter):
            plan = check([f"{name}={value}"])
            assert (plan.errors, plan.warnings) == ([], []), (name, value)


def test_the_values_of_the_default_experiment_lie_inside():
    experiment = yaml.safe_load((conf_dir() / "experiment" / "digits.yaml").read_text())
    for name in ("penalty", "lr", "bits_lr"):
        assert PARAMETERS[name]["min"] < float(experiment[name]) < PARAMETERS[name]["max"]


def test_the_command_as_the_agent_fills_it_in():
    from wandb.sdk.launch.sweeps import utils

    words = utils.create_sweep_command(list(SWEEP["command"]))
    assert words[-1] == "${args_no_hyphens}" and words[1:4] == ["python", "-m", "${program}"]
    filled = [*words[4:-1], *utils.create_sweep_command_args(trial("r", **TRIAL))["args_no_hyphens"]]
    assert filled == ["tracking.mode=online", *(f"{key}={value}" for key, value in TRIAL.items())]
    plan = check(filled)
    assert (plan.errors, plan.warnings) == ([], [])


# ---- an agent -----------------------------------------------------------------------------------------------


class SweepServer(Server):
    """Hands `trials` to an agent, one after another, and then sends it home. `runs`: the names of those begun."""

    def __init__(self, *trials: dict[str, Any]) -> None:
        super().__init__()
        self.trials, self.runs = list(trials), list[str]()
        self.config = {**SWEEP, "command": [*SWEEP["command"][:-1], *TINY, "tracking=wandb", SWEEP["command"][-1]]}
        self.rows_of: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        query, variables = body.get("query", ""), body.get("variables") or {}
        if "Viewer" in query:
            return {"data": {"viewer": {"id": "u", "entity": "someone", "username": "someone", "flags": "{}"}}}
        if "SweepWithRuns" in query:
            sweep = {"id": "s", "name": "s", "config": yaml.safe_dump(self.config), "runs": {"edges": []}}
            return {"data": {"project": {"sweep": sweep}}}
        if "CreateAgent" in query:
            return {"data": {"createAgent": {"agent": {"id": "a"}}}}
        if "Heartbeat" in query:
            busy = json.loads(variables["runState"])
            commands = [] if busy else [self.trials.pop(0) if self.trials else {"type": "exit"}]
            return {"data": {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}}
        if path.endswith("/file_stream"):
            self._note(path.split("/")[-2], body.get("files", {}))
        if "UpsertBucket" in query and variables["name"] not in self.runs:
            self.runs.append(variables["name"])
        return super().answer(path, body)

    def _note(self, run: str, files: dict[str, Any]) -> None:
        for name, file in files.items():
            lines = [json.loads(line) for line in file["content"]]
            if name == "wandb-history.jsonl":
                self.rows_of.setdefault(run, []).extend(lines)
            elif name == "wandb-summary.json":
                self.summaries.setdefault(run, {}).update(lines[-1])

    def handle_error(self, *_: Any) -> None:
        """wandb also sends telemetry, which is no JSON."""


def run_agent(server: SweepServer, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": os.urandom(20).hex(), "HOME": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "wandb", "agent", "someone/diffq_exp/s"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.long
def test_trials_report_to_the_runs_of_their_agent(tmp_path):
    """The second asks for what is done already: the run is not repeated, but W&B has to hear its numbers."""
    with SweepServer(trial("first", **TRIAL), trial("second", **TRIAL)) as server:
        done = run_agent(server, tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and "is finished already" in done.stdout
    assert server.runs == ["first", "second"], done.stderr
    for run in server.runs:
        rows = server.rows_of[run]
        assert [row["_step"] for row in rows] == [1, 2]
        assert rows[-1]["val/accuracy"] == pytest.approx(result["val"]["accuracy"])
        assert server.summaries[run]["val/accuracy"] == pytest.approx(result["val"]["accuracy"])
