"""Two ranks of one thread each beside one rank of two threads, on the same batch; what gradients of logits add.

The ranks are processes of this machine that talk by gloo, so that the traffic is through memory. Steps of the three
variants take turns; the slower rank counts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from .common import MB, Context, Part, Rounds, Row, Spread, over
from .steps import Setting, batch_of, network, sized
from .variants import HERE, PLAIN, LossOf, Trainee, Variant

WORLD = 2
SETTING = Setting("resnet18", 32, Rounds(warm=2, least=5, most=9, seconds=30), {})
VARIANTS = (Variant(PLAIN), Variant(HERE), Variant(HERE, group_size=1))
CPU = torch.device("cpu")


def ranks(context: Context) -> Part:
    """Rows of the steps of one rank and of two, and of the logits' traffic."""
    setting = sized(context, SETTING)
    context.say(f"{WORLD} ranks, {setting.title}")
    threads = torch.get_num_threads()
    torch.set_num_threads(WORLD)
    try:
        alone = _times(setting, {variant: _trainee(setting, variant, slice(None)) for variant in VARIANTS})
    finally:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_rank, (setting, folder), WORLD, start_method="spawn")
        found = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]
    shared = {
        name: [max(pair) for pair in zip(*(one["seconds"][name] for one in found), strict=True)] for name in alone
    }
    return Part(_rows(setting, alone, shared, found[0]["bytes"]), {"one rank": alone, "two ranks": shared})


def _rows(
    setting: Setting, alone: Mapping[str, list[float]], shared: Mapping[str, list[float]], sent: Mapping[str, int]
) -> list[Row]:
    rows = []
    for name in alone:
        whole, parts = Spread.of(alone[name]), Spread.of(shared[name])
        text = f"{WORLD} ranks of 1 thread, {setting.title}, {name}: a step"
        told = f"{parts.show(' s')}; one rank of {WORLD} threads {whole.show(' s')}"
        rows.append(Row(text, told, detail={"ranks": asdict(parts), "alone": asdict(whole)}))
    for name in list(alone)[1:]:
        added, compared = (sent[name] - sent[PLAIN]) / MB, over(shared[name], shared[PLAIN])
        before = over(alone[name], alone[PLAIN])
        told = (
            f"{added:.1f} MB beside {sent[PLAIN] / MB:.1f}; {compared.show()} x plain, on one rank {before.show()}"
        )
        rows.append(Row(f"gradients that a rank sends for the logits, {name}", told))
    return rows


def _trainee(setting: Setting, variant: Variant, part: slice) -> Trainee:
    images, targets = (tensor[part] for tensor in batch_of(setting, CPU))
    return Trainee(variant, network(setting, CPU), lambda model: cross_entropy(model(images), targets), CPU)


def _times(setting: Setting, trainees: Mapping[Variant, Trainee]) -> dict[str, list[float]]:
    calls = {variant.name: lambda trainee=trainee: _timed(trainee) for variant, trainee in trainees.items()}
    return setting.rounds.run(calls)


def _timed(trainee: Trainee) -> float:
    if dist.is_initialized():
        dist.barrier()
    return trainee.timed().step


# ---- a rank ----------------------------------------------------------------------------------------------------


def _rank(rank: int, setting: Setting, folder: str) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", meet, timedelta(minutes=5), WORLD, rank)
    try:
        half = setting.batch // WORLD
        trainees = {
            variant: _trainee(setting, variant, slice(rank * half, (rank + 1) * half)) for variant in VARIANTS
        }
        sent = {}
        for variant, trainee in trainees.items():
            _send_gradients(trainee)
            sent[variant.name] = sum(4 * param.numel() for param in trainee.model.parameters())
        # the number of rounds has to be the same on both ranks
        rounds = Rounds(setting.rounds.warm, setting.rounds.most, setting.rounds.most, 0)
        calls = {variant.name: lambda trainee=trainee: _timed(trainee) for variant, trainee in trainees.items()}
        found: dict[str, Any] = {"seconds": rounds.run(calls), "bytes": sent}
        Path(folder, f"{rank}.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def _send_gradients(trainee: Trainee) -> None:
    """Let the forward of a trainee go by DistributedDataParallel."""
    parallel, inner = DistributedDataParallel(trainee.model), trainee._loss_of

    def loss_of(model: nn.Module) -> Tensor:
        return inner(parallel)

    outer: LossOf = loss_of
    trainee._loss_of = outer
