"""Kinds of runs for kill_points.py: a command and the folder that it finds; each command has its own process."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from file_operations import KILLED, Operations

TINY = (
    "dataset=synthetic", "dataset.num_classes=4", "dataset.channels=1", "dataset.image_size=8",
    "dataset.train_images=32", "dataset.test_images=8", "val_fraction=0.25", "batch_size=16", "epochs=2",
    "device=cpu", "threads=1", "tracking=none", "storage.coding=packed",
)  # fmt: skip
BROKEN = 70  # exit code of a process that ended by an exception
MODEL = "model.safetensors"
Words = Sequence[str]
Command = Callable[[Words], int]  # words -> exit code, in the folder of the process


class Failure(Exception):
    """What went wrong, in a line."""


def check(condition: bool, problem: str) -> None:
    if not condition:
        raise Failure(problem)


def forked(work: Callable[[], int]) -> int:
    """Do this in a process of its own; -> its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@cache
def planned(words: tuple[str, ...]) -> Any:
    from diffq_exp.command.arguments import parse_arguments
    from diffq_exp.command.check import check_arguments

    plan = check_arguments(parse_arguments(list(words)))
    check(not plan.errors, f"not a command: {plan.errors}")
    return plan


def train(words: Words) -> int:
    """`python -m diffq_exp.train`, after the configuration is composed."""
    from diffq_exp.runs import machine
    from diffq_exp.sweeps.launch import carry_out_plan

    machine.git_state = lambda: ("0123456789" * 4, False)
    return carry_out_plan(planned(tuple(words)), list(words))


@dataclass(frozen=True)
class Place:
    """A folder `root` in which commands are given, with the words that the last one said in `said`."""

    folder: Path
    command: Command = train

    @property
    def root(self) -> Path:
        return self.folder / "here"

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    @property
    def operations(self) -> list[str]:
        """Of the last command that was not killed."""
        return (self.folder / "operations.txt").read_text().splitlines()

    def give(self, words: Words, stop_at: int | None = None) -> int:
        """-> exit code. The process ends before operation `stop_at`, counted from 1."""
        os.chdir(self.root)
        if self.command is train:
            planned(tuple(words))  # here, so that no process has to

        def work() -> int:
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1), os.dup2(said, 2)
            with Operations(self.root, stop_at) as operations:
                code = self.command(words)
            (self.folder / "operations.txt").write_text("\n".join(operations.seen))
            return code

        return forked(work)

    def kill_after_an_epoch(self, words: Words) -> None:
        """Give a command, and kill its process when it has saved its first epoch."""
        self.keep("before")
        check(self.give(words) == 0, f"the run does not finish: {self.said}")
        listed = enumerate(self.operations, 1)
        saved = next(number for number, text in listed if text.startswith("rename") and "checkpoint.pt" in text)
        self.bring("before")
        check(self.give(words, stop_at=saved + 1) == KILLED, "the run is not killed")

    def keep(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.copytree(self.root, self.folder / name)

    def bring(self, name: str) -> None:
        for path in self.root.iterdir():  # not the folder itself, in which processes stand
            shutil.rmtree(path)
        shutil.copytree(self.folder / name, self.root, dirs_exist_ok=True)


# ---- kinds of runs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A command, and how the folder comes to be that it finds. again: what is typed after the kill, if not that."""

    words: Words
    start: Callable[[Place], None]
    again: Words | None = None


def nothing(place: Place) -> None:
    """No run has been there."""


def finished(place: Place) -> None:
    check(place.give(TINY) == 0, f"the first run does not finish: {place.said}")


def after_an_epoch(place: Place) -> None:
    place.kill_after_an_epoch(TINY)


def restarted(place: Place) -> None:
    finished(place)
    place.kill_after_an_epoch(RESTART)


def damaged(place: Place) -> None:
    finished(place)
    (model,) = place.root.glob(f"outputs/*/{MODEL}")
    model.write_bytes(model.read_bytes()[:-9])


RESTART = (*TINY, "restart=true")
KINDS = {
    "run": Kind(TINY, nothing),
    "resumed": Kind(TINY, after_an_epoch),
    "ptq": Kind((*TINY, "quantizer=ptq"), nothing),
    "restart": Kind(RESTART, finished),
    "restart-then-without": Kind(RESTART, finished, again=TINY),
    "restart-of-a-restart": Kind(RESTART, restarted),
    "restart-of-a-stopped-run": Kind(RESTART, after_an_epoch),
    "damaged": Kind(TINY, damaged),
    "refused": Kind((*TINY, "target_mb=0.001"), nothing),
}
