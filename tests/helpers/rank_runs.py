"""`python -m diffq_exp.train` on several ranks of this machine, forks of a process that has imported torch.

As a program: `{"world", "words", "kill"}` in JSON; it prints the exit status of each rank. What a rank prints goes
to said-<rank>.txt, and the bits that it sees at the end of each epoch to bits-<rank>.txt. kill: [rank, signal,
saves], sent after so many checkpoints of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from helpers import warm
from helpers.run_pieces import TinyNet
from torch import Tensor, nn
from torch.nn import functional

from diffq_exp.data import Data
from diffq_exp.data.synthetic import synthetic


@dataclass
class Ended:
    """Exit codes, and seconds from the kill to the end of the last rank."""

    folder: Path
    codes: list[int]
    seconds: float

    def said(self, rank: int) -> str:
        return (self.folder / f"said-{rank}.txt").read_text()

    def bits(self, rank: int) -> list[str]:
        return (self.folder / f"bits-{rank}.txt").read_text().split()

    @property
    def run(self) -> Path:
        (folder,) = (self.folder / "outputs").iterdir()
        return folder


def on_ranks(folder: Path, *words: str, world: int = 2, kill: list[int] | None = None, **environment: str) -> Ended:
    """Do a run in `folder`, to its end."""
    folder.mkdir(exist_ok=True)
    asked = json.dumps({"world": world, "words": words, "kill": kill})
    done = warm.run(["-m", "helpers.rank_runs", asked], folder, GLOO_SOCKET_IFNAME="lo", **environment)
    assert done.returncode == 0, done.stderr
    return Ended(folder, **json.loads(done.stdout))


class FailsOnRank1(TinyNet):
    """A network that the second rank cannot build, or cannot compute."""

    def __init__(self, num_classes: int, where: str) -> None:
        super().__init__(num_classes)
        self.where = where
        self._fail("build")

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # not at the trial before the run
            self._fail("forward")
        return super().forward(images)

    def _fail(self, here: str) -> None:
        if self.where == here and os.environ.get("RANK") == "1":
            raise ZeroDivisionError("on purpose")


def other_on_rank1(train_images: int, **keys: Any) -> Data:
    """Of which the second rank has 16 images less, as a copy of a folder may."""
    return synthetic(train_images=train_images - 16 * (os.environ.get("RANK") == "1"), **keys)


class SmoothNet(TinyNet):
    """Without a ReLU, which rounding may turn over: what two computations differ by stays small."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.conv = nn.Conv2d(
            1, 8, 3, padding=1, bias=False
        )  # Adam would turn the rounding of its gradient into steps
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(functional.gelu(self.norm(self.conv(images))).flatten(1))


# ---- in the program --------------------------------------------------------------------------------------------


def main(asked: dict[str, Any]) -> None:
    world, port = asked["world"], _free_port()
    ranks = [_fork(rank, world, port, asked["words"]) for rank in range(world)]
    started = time.monotonic()
    if asked["kill"]:
        rank, number, saves = asked["kill"]
        _await_saves(saves)
        os.kill(ranks[rank], number)
        started = time.monotonic()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]
    print(json.dumps({"codes": codes, "seconds": time.monotonic() - started}))


def _fork(rank: int, world: int, port: int, words: list[str]) -> int:
    if child := os.fork():
        return child
    code: Any = 1
    try:
        places = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        os.environ.update({name: str(value) for name, value in places.items()})
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        said = os.open(f"said-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _keep_bits(rank)
        sys.argv = ["train", *words]
        runpy.run_module("diffq_exp.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _keep_bits(rank: int) -> None:
    """Write a hash of widths and weights at the end of each epoch."""
    from diffq_exp.training.trainer import Trainer

    measure = Trainer._measure

    def measured(self: Trainer) -> Any:
        row, digest = measure(self), hashlib.sha256()
        tensors = [*self.model.state_dict().values(), *(self.quantizer.bits().values() if self.quantizer else ())]
        for tensor in tensors:
            digest.update(tensor.numpy().tobytes())
        with open(f"bits-{rank}.txt", "a") as file:
            file.write(digest.hexdigest() + "\n")
        return row

    Trainer._measure = measured  # type: ignore[method-assign]


def _await_saves(saves: int) -> None:
    seen, until = _stamp(), time.monotonic() + 120
    while saves and time.monotonic() < until:
        time.sleep(0.002)
        if _stamp() != seen:
            saves, seen = saves - 1, _stamp()


def _stamp() -> list[int]:
    return [path.stat().st_mtime_ns for path in Path("outputs").glob("*/checkpoint.pt")]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
