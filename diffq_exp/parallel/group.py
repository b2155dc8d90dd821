"""The ranks of a run as a group of torch.distributed: gloo between CPUs, and nccl for what lies on GPUs.

What is agreed goes by gloo also where the weights are on GPUs: no device is waited for, and gloo notices at once
that a process is gone. torchrun ends the ranks that are left then; without it they end by themselves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .alike import check_starts
from .place import Place, meeting_point
from .ranks import RankLost, Ranks, Value
from .sent import outcome_of, received

TIMEOUT = timedelta(hours=2)  # the others wait while the first rank stores a large network
PATIENCE = 5.0  # seconds for the first rank to tell the user why the run ends
FAILED, SAID = "failed", "said"  # keys of the store
SIGNS = ("gloo", "nccl", "peer", "socket", "store", "broken pipe")  # in errors of a connection that is gone


class Group(Ranks):
    """The processes of one run; made once in each of them. `leave()` belongs in a `finally`.

    mistake: what this rank has found wrong with the run, for the others to know. Raises: ValueError on all ranks
    where one has a mistake, or too few GPUs, or another kind of device.
    """

    def __init__(self, place: Place, device: str, mistake: str | None = None) -> None:
        self.rank, self.world = place.rank, place.world
        try:
            self.device = _device(place, device)
        except ValueError as error:
            self.device, mistake = torch.device("cpu"), mistake or str(error)
        for name, value in {**meeting_point(), "RANK": str(self.rank), "WORLD_SIZE": str(self.world)}.items():
            os.environ.setdefault(name, value)
        if "OMP_NUM_THREADS" not in os.environ:  # torch would take every core for each rank
            torch.set_num_threads(max(1, torch.get_num_threads() // place.local_world))
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # one store serves all starts of torchrun
        self.store = dist.PrefixStore(f"start-{start}", store)
        check_starts(self.store, self.rank, self.world, self.device.type, mistake)
        backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=self.store, rank=self.rank, world_size=self.world, timeout=TIMEOUT)

    def leave(self) -> None:
        """End the group."""
        with suppress(RuntimeError):  # of connections that are gone
            dist.destroy_process_group()

    def told(self, function: Callable[[], Value]) -> Value:
        value: Any
        box, error = [b""], None
        if self.first:
            value, error, box[0] = outcome_of(function)
        with _connected(self):
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        if not self.first:
            value, error = received(box[0])
        if error is not None:
            self.settled = error
            raise error
        told: Value = value
        return told

    def every(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.world
        with _connected(self):
            dist.all_gather_object(values, value)
        return values

    def largest(self, *numbers: int) -> list[int]:
        tensor = torch.tensor(numbers, dtype=torch.int64)
        with _connected(self):
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [int(number) for number in tensor]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        own: Exception | None = None
        try:
            yield
        except RankLost:
            raise
        except Exception as error:
            own = error
        texts = self.every(None if own is None else f"{type(own).__name__}: {own}")
        first = next((rank for rank, text in enumerate(texts) if text is not None), None)
        if first is None:
            return
        self.settled = own or RankLost(f"rank {first}: {texts[first]}")
        raise self.settled

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        with _connected(self):
            for tensor in tensors:
                sent = tensor.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(sent, 0)
                if not self.first:
                    tensor.detach().copy_(sent)  # so that a quantizer sees that it has changed

    def mean(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        with _connected(self):
            dist.all_reduce(flat)
        flat /= self.world
        for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def cause(self, error: BaseException) -> BaseException:
        if error is self.settled or isinstance(error, RankLost) or not isinstance(error, RuntimeError):
            return error
        if not any(sign in str(error).lower() for sign in SIGNS):
            return error
        with suppress(RuntimeError):  # the store may be gone with its process
            if self.store.check([FAILED]):
                return RankLost(self.store.get(FAILED).decode())
        return RankLost("another rank has ended without a word (killed?)")

    def failed(self, reason: str, lost: bool) -> bool:
        if self.settled is not None:
            return self.first
        with suppress(RuntimeError):  # the store may be gone with its process
            if not self.store.check([FAILED]):
                self.store.set(FAILED, f"rank {self.rank}: {reason}")
            if self.first:
                self.store.set(SAID, "")
            return self.first or (lost and not self._is_said())
        return True

    def _is_said(self) -> bool:
        """Whether the first rank has told the user within a while; it may be the one that has died."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.store.check([SAID]):
                return True
            time.sleep(0.1)
        return False


@contextmanager
def _connected(group: Group) -> Iterator[None]:
    """Raises: RankLost where a connection is gone."""
    try:
        yield
    except RuntimeError as error:
        cause = group.cause(error)
        if cause is error:
            raise
        raise cause from error


def _device(place: Place, wanted: str) -> torch.device:
    """The device of this rank, among those of this machine or those that Slurm shows to this task."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if place.local_rank >= count > 1 or (count == 1 < place.local_world and "SLURM_LOCALID" not in os.environ):
        raise ValueError(
            f"{place.local_world} ranks on this machine, which has {count} GPU; start fewer, or device=cpu"
        )
    index = place.local_rank if count > 1 else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
