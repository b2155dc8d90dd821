"""Folders of runs that nobody trained: records as runs leave them, with made numbers, for tests of the report."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from diffq_exp.common.files import write_json
from diffq_exp.results.headline import Headline
from diffq_exp.results.metrics import write_rows

FLOAT32_MB = 1.067
LAYERS = ("conv2.weight", "conv3.weight", "conv4.weight", "conv5.weight")
COMMIT = "a9dbb7ea2c3fc5a3e1d0c61a3c0d6f4b1f2e3d4c"
NODES: dict[str, dict[str, Any]] = {
    "diffq": {
        "_target_": "diffq_exp.quant.DiffQuantizer",
        **{key: f"${{{key}}}" for key in ("noise", "param", "group_size", "min_size")},
        "extra_bits": 0,
        "training": {"penalty": "${penalty}", "lr": "${bits_lr}"},
    },
    "qat": {"_target_": "diffq_exp.quant.UniformQuantizer", "qat": True, "bits": "${bits}"},
    "lsq": {"_target_": "diffq_exp.quant.LSQ", "bits": "${bits}"},
    "ptq": {
        "_target_": "diffq_exp.quant.UniformQuantizer",
        "qat": False,
        "bits": "${bits}",
        "training": {"after": True},
    },
    "none": {},
}
PLAIN = {
    "diffq": {"noise": "uniform", "param": "bits", "group_size": 8, "min_size": 0.01, "penalty": 1, "bits_lr": 0.1}
}
TEXT = ("dataset=text", "model=gpt", "task=language_modelling")  # overrides of runs with the headline below
BITS_PER_BYTE = Headline("bits_per_byte", "bits per byte", "bits", False, 8.0, (0.05, 0.1))
LOSS = {"diffq": 0.004, "qat": 0.006, "lsq": 0.005, "ptq": 0.02, "none": 0.0}  # of accuracy at 4 bits


class _Score(NamedTuple):
    """A score, and in which direction it is better: 1.0 or -1.0."""

    name: str
    value: float
    sign: float


def made_run(
    outputs: Path,
    overrides: Sequence[str] = (),
    status: str = "finished",
    accuracy: float | None = None,
    bits_per_byte: float | None = None,
    mb: float | None = None,
    epochs: int = 3,
    layers: Sequence[str] = LAYERS,
    commit: str = COMMIT,
    **more: Any,
) -> Path:
    """A run as overrides describe it: quantizer=, dataset=, model=, seed= and plain keys; -> its folder.

    accuracy, bits_per_byte (of a run with TEXT), mb: made up where they are not given. more: further fields.
    """
    typed: dict[str, Any] = dict(override.split("=", 1) for override in overrides)
    names = {group: typed.pop(group, name) for group, name in (
        ("dataset", "digits"), ("model", "digits_cnn"), ("quantizer", "diffq"), ("optimizer", "adam"),
        ("scheduler", "cosine"), ("task", "classification"),
    )}  # fmt: skip
    typed = {key: _value(text) for key, text in typed.items()}
    config = _config(names["quantizer"], typed)
    if names["quantizer"] == "ptq" and "init_from" not in config:
        plain = {key: value for key, value in typed.items() if key != "bits"}
        config["init_from"] = _signature({**names, "quantizer": "none"}, _config("none", plain))
    signature = _signature(names, config)
    chance = random.Random(signature)
    bits = _bits(names["quantizer"], config)
    mb = FLOAT32_MB * bits / 32 * chance.uniform(0.98, 1.02) + 0.004 if mb is None else mb
    if accuracy is None:
        accuracy = 0.996 - LOSS.get(names["quantizer"], 0.01) * (4 / bits) ** 2 + chance.gauss(0, 0.001)
    score = _Score("accuracy", accuracy, 1.0)
    if names["task"] == "language_modelling":
        score = _Score(
            "bits_per_byte", 2.3 + 7 * (0.996 - accuracy) if bits_per_byte is None else bits_per_byte, -1.0
        )
    folder = outputs / "-".join([names["dataset"], names["model"], names["quantizer"], signature])
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"status": status, "signature": signature, "run_id": f"{signature}-ab12cd34"}
    result |= {"seed": config["seed"], "seconds": round(chance.uniform(15, 30), 2), **_machine(commit)}
    result |= {"choices": names, "overrides": list(overrides), "config": config}
    if status == "finished":
        result |= _scores(score, mb, bits, epochs, layers, names["quantizer"])
        write_rows(
            folder / "metrics.jsonl",
            [_row(epoch, epochs, score, mb, bits, layers) for epoch in range(1, epochs + 1)],
        )
    write_json(folder / "result.json", {**result, **more})
    (folder / ".lock").touch()
    return folder


def made_sweep(
    outputs: Path, seeds: int = 3, name: str = "pareto_digits-1a2b3c4d", first: Sequence[str] = (), **kind: Any
) -> Path:
    """Like experiment=pareto_digits: five methods, four sizes each; one job failed, one diverged, two are missing.

    first: overrides of every run, TEXT say. kind: arguments of made_run. -> the sweep's record.
    """
    methods = [[f"quantizer={method}", f"bits={bits}"] for method in ("ptq", "qat", "lsq") for bits in (2, 3, 4, 8)]
    methods += [["quantizer=diffq", f"penalty={penalty}"] for penalty in (0.3, 1, 3, 10)] + [["quantizer=none"]]
    jobs = [[*first, *overrides, f"seed={seed}"] for overrides in methods for seed in range(seeds)]
    folders = [made_run(outputs, job, **kind) for job in jobs]
    folders.append(
        made_run(outputs, [*first, "lr=1e30"], "diverged", reason="loss is nan in epoch 1, step 3", epoch=1, step=3)
    )
    folders.append(made_run(outputs, [*first, "quantizer=lsq", "bits=5"], "failed", reason="OSError: disk full"))
    records = [
        {"folder": folder.name, "signature": folder.name[-10:], "overrides": read_overrides(folder)}
        for folder in folders
    ]
    for number in range(2):
        signature = f"00000000{number:02}"
        overrides = [*first, "quantizer=qat", "bits=6", f"seed={number}"]
        records.append(
            {"folder": f"digits-digits_cnn-qat-{signature}", "signature": signature, "overrides": overrides}
        )
    record = outputs / ".sweeps" / f"{name}.json"
    record.parent.mkdir(exist_ok=True)
    command = "python -m diffq_exp.train -m experiment=pareto_digits"
    write_json(record, {"name": name, "command": command, "by": ["quantizer"], "jobs": records})
    return record


def read_overrides(folder: Path) -> list[str]:
    overrides: list[str] = json.loads((folder / "result.json").read_text())["overrides"]
    return overrides


def _signature(names: dict[str, str], config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([names, config], sort_keys=True).encode()).hexdigest()[:10]


def _config(quantizer: str, typed: dict[str, Any]) -> dict[str, Any]:
    """As it is recorded: plain keys by value, then the nodes."""
    keys: dict[str, Any] = {"seed": 0, "epochs": 20, "batch_size": 64, "lr": 0.003, "val_fraction": 0.1}
    keys |= PLAIN.get(quantizer, {} if quantizer == "none" else {"bits": 8})
    keys |= {key: value for key, value in typed.items() if "." not in key}
    nodes: dict[str, Any] = {
        "dataset": {"_target_": "diffq_exp.data.digits", "seed": "${seed}", "val_fraction": "${val_fraction}"},
        "model": {"_target_": "diffq_exp.models.digits_cnn"},
        "quantizer": dict(NODES.get(quantizer, {})),
        "optimizer": {"_target_": "torch.optim.Adam", "lr": "${lr}", "weight_decay": 0},
    }
    for key, value in typed.items():
        node, dot, name = key.partition(".")
        if dot:
            nodes[node][name] = value
    return {**keys, **nodes}


def _bits(quantizer: str, config: dict[str, Any]) -> float:
    if quantizer == "none":
        return 32.0
    bits = config["bits"] if "bits" in config else 2 + 2 / (config.get("penalty", 1) + 0.3)
    return float(bits)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _machine(commit: str) -> dict[str, Any]:
    versions = {"python": "3.11.7", "diffq_exp": "0.1.0", "torch": "2.15.0"}
    hardware = {"cpu": "A Processor @ 2.50GHz", "cores": 2, "threads": 1, "gpu": None}
    return {"device": "cpu", "git_commit": commit, "git_dirty": False, "versions": versions, "hardware": hardware}


def _scores(
    score: _Score, mb: float, bits: float, epochs: int, layers: Sequence[str], quantizer: str
) -> dict[str, Any]:
    if score.name == "accuracy":  # as recorded before there were headlines
        data: dict[str, Any] = {"name": "digits", "classes": 10, "train": 1078, "val": 120, "test": 599}
        before, more = min(1.0, score.value + 0.0017), {}
    else:
        data = {"name": "text", "vocabulary": 256, "train": 3000, "val": 350, "test": 170}
        before, more = score.value - 0.01, {"headline": BITS_PER_BYTE.to_json()}
    scores: dict[str, Any] = {
        "epochs": epochs,
        "data": data,
        **more,
        "test": {"loss": 1 - score.sign * score.value, score.name: score.value, f"float32_{score.name}": before},
        "val": {"loss": 1.01 - score.sign * score.value, score.name: score.value - score.sign * 0.003},
        "size_mb": {"soft": mb, "true": 0.96 * mb, "float32": FLOAT32_MB, "file": mb},
    }
    return scores if quantizer == "none" else {**scores, "bits": _layers(bits, layers)}


def _layers(bits: float, layers: Sequence[str]) -> dict[str, Any]:
    each = {name: round(bits + 0.7 - 0.4 * place, 3) for place, name in enumerate(layers)}
    return {"mean": bits, "min": min(each.values()), "max": max(each.values()), "layers": each}


def _row(epoch: int, epochs: int, score: _Score, mb: float, bits: float, layers: Sequence[str]) -> dict[str, Any]:
    left = 1 - epoch / epochs
    train, val = (score.value * (1 - score.sign * part * left) for part in (0.3, 0.35))
    row: dict[str, Any] = {"epoch": epoch, "train": {"loss": 0.01 + left, score.name: train}}
    row["val"] = {"loss": 0.02 + left, score.name: val}
    row["size_mb"] = {"soft": mb * (1 + left), "true": mb * (1 + 0.9 * left)}
    row["bits"] = _layers(bits * (1 + left), layers)
    return {**row, "seconds": 1.2, "images_per_second": 900.0, "lr": 0.003 * left}
