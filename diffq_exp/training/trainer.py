"""The training loop. It is handed built objects, and only runs, measures, records and saves.

    epoch = steps of (accumulate x batch_size examples: task loss + penalty * size), then validation, a row of
    metrics, a checkpoint.

The quantizer and the penalty get the progress of training before each step: the share that is done, 0 to 1.

Inside a step nothing waits for the device, but the first step of a process and a steered penalty, which reads its
size. Losses and scores are summed there, and read every few steps: for the display, and to see a loss of nan.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Data, Share, share_of
from ..parallel.batch_norm import compute_apart
from ..parallel.place import LEAST
from ..parallel.ranks import ALONE, Ranks
from ..quant.quantizer import Quantizer
from ..quant.size import FormulaSize, Size
from ..results.metrics import append_row
from ..results.run_files import METRICS
from ..tasks import Task, as_task
from .accumulation import steps_from
from .clock import Clock
from .distillation import Teacher
from .finish import Finish
from .measure import Sums, evaluate, own_share
from .optim import Optimizers
from .penalty import SizeControl
from .recomputation import Recomputation
from .resume import follow_first, resume, save
from .schedule import Schedule
from .settings import Listener, Settings
from .shared_loss import SharedLoss
from .size_record import size_row
from .stopping import Diverged, FiniteWatch, Interrupted, StopFlag

READ_EVERY = 50  # steps between two looks at the sums on the device


class Trainer:
    """Trains `model` on `data`, resumes from the folder's checkpoint, and leaves metrics and checkpoints there.

    quantizer: attached already, or None. penalty: None without a learned size. size: the measure in the rows of
    metrics. finish: what is done at the end. run_id: a name for the run that a resumed part keeps; clock: its time.
    ranks: the processes that share the run; all of them call the same functions, and the first one writes.
    """

    def __init__(
        self,
        model: nn.Module,
        quantizer: Quantizer | None,
        optimizers: Optimizers,
        schedule: Schedule,
        task: Task,
        data: Data,
        settings: Settings,
        *,
        device: torch.device,
        folder: Path,
        run_id: str,
        listeners: list[Listener],
        penalty: SizeControl | None = None,
        size: Size | None = None,
        teacher: Teacher | None = None,
        finish: Finish | None = None,
        clock: Clock | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.quantizer, self.optimizers, self.penalty = model, quantizer, optimizers, penalty
        self.schedule, self.task, self.data, self.settings = schedule, as_task(task), data, settings
        self.device, self.folder, self.run_id, self.listeners = device, folder, run_id, listeners
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self.watch, self.forward = FiniteWatch(device), torch.compile(model) if settings.compile else model
        self.epoch, self.batch, self.seconds = 0, 0, 0.0  # the place in the run; seconds of this epoch so far
        self.sums, self.rows = Sums(), list[dict[str, Any]]()  # of this epoch, and of metrics.jsonl
        self.size, self.progress = size or FormulaSize(), 0.0  # progress: the share of training that is done
        self.teacher, self.finish = teacher, finish or Finish()
        self.averages, self.clock = self.finish.averages, clock or Clock()
        self.ranks, self.train = ranks, share_of(data.train, Share(ranks.rank, ranks.world, LEAST))
        self.val = own_share(data.val, ranks) if data.val is not None else None
        self.shared = SharedLoss(ranks, model, self._loss, data.train, self.task) if ranks.world > 1 else None
        begin = self.shared.begin if self.shared is not None else None
        self.recomputation = Recomputation(model, quantizer, self._changed, begin)

    def fit(self, stop: StopFlag) -> None:
        """Run all epochs that are left. Raises: Diverged; Interrupted, after saving, when `stop` is set."""
        resume(self)
        for listener in self.listeners:
            listener.started(self.run_id, list(self.rows))
        while self.epoch < self.settings.epochs:
            self._train_epoch(stop)
            self._set_progress(self.epoch + 1)
            self._check_weights()
            row = self._measure()
            self.rows.append(row)
            self.ranks.told(partial(append_row, self.folder / METRICS, row))
            for listener in self.listeners:
                listener.epoch(row)
            self.epoch, self.batch, self.seconds, self.sums = self.epoch + 1, 0, 0.0, Sums()
            save(self)
            stops, _ = self._agree(stop)
            if stops and self.epoch < self.settings.epochs:
                raise Interrupted
        self._set_progress(self.settings.epochs)
        compute_apart(self.model)
        self.ranks.told(lambda: self.finish(self.model, self.quantizer, self.task, self.data.train))
        follow_first(self)

    # ---- one epoch ------------------------------------------------------------------------------------------

    def _train_epoch(self, stop: StopFlag) -> None:
        self.model.train()
        steps = -(-len(self.data.train) // self.settings.accumulate)
        started = saved = time.monotonic()
        before = self.seconds
        for step, batches in steps_from(self.train, self.epoch, self.batch, self.settings.accumulate):
            self._step(step, batches, steps)
            now = time.monotonic()
            self.seconds = before + now - started
            last = self.batch >= len(self.data.train)
            if step % READ_EVERY == 0 or last:
                self.watch.check(self.epoch + 1, self.ranks)
                means = self.task.finish(self.sums.means(self.ranks))
                for listener in self.listeners:
                    listener.step(self.epoch + 1, step, steps, means)
            if last:
                break
            stops, due = self._agree(stop, now - saved > 60 * self.settings.checkpoint_minutes)
            if stops or due:
                self._check_weights()
                save(self)
                saved = now
            if stops:
                raise Interrupted
        self.seconds = before + time.monotonic() - started

    def _agree(self, stop: StopFlag, due: bool = False) -> tuple[bool, bool]:
        """All ranks stop, or save, where one of them is to. A signal that comes meanwhile counts the next time."""
        signal, saves = self.ranks.largest(stop.signal or 0, due)
        if signal:
            stop.signal = signal
        return bool(signal), bool(saves)

    def _step(self, step: int, batches: list[tuple[Tensor, Tensor]], steps: int) -> None:
        place = self.epoch + (step - 1) / steps
        self._set_progress(place)
        self.optimizers.set_rates(self.schedule, place, self.settings.epochs)
        self.optimizers.zero_grad()
        self.recomputation.step(lambda: self._gradients(step, batches))
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizers)  # type: ignore[arg-type]  # duck-typed, see Optimizers
            self.optimizers.clip(self.settings.clip)
        self.scaler.step(self.optimizers)  # type: ignore[arg-type]
        self.scaler.update()
        if self.shared is not None:
            self.shared.ended()
        if self.averages is not None:
            self.averages.update()
        self.batch += len(batches)

    def _gradients(self, step: int, batches: list[tuple[Tensor, Tensor]]) -> None:
        if self.shared is not None:
            self._shared_gradients(self.shared, step, batches)
            return
        for inputs, targets in batches:
            with self.recomputation.weights():
                self._backward(self._loss(inputs, targets) / len(batches), step)

    def _shared_gradients(self, shared: SharedLoss, step: int, batches: list[tuple[Tensor, Tensor]]) -> None:
        for number, batch in enumerate(shared.weighted(batches), start=1):
            with shared.sending(number == len(batches)), self.recomputation.weights():
                self._backward(shared(*batch) / len(batches), step)

    def _backward(self, loss: Tensor, step: int) -> None:
        self.watch.see(loss, step)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _changed(self) -> Callable[[], None]:
        """-> a function that puts sums and the penalty back to what they are now."""
        sums, penalty = copy.deepcopy(self.sums), self.penalty.state_dict() if self.penalty is not None else {}

        def undo() -> None:
            self.sums = sums
            if self.penalty is not None and self.quantizer is not None:
                self.penalty.load_state_dict(penalty, self.quantizer)

        return undo

    def _set_progress(self, epoch: float) -> None:
        """Tell the quantizer which share of training is done at a real-valued epoch."""
        self.progress = epoch / self.settings.epochs if self.settings.epochs else 1.0
        if self.quantizer is not None:
            self.quantizer.at(self.progress)

    def _loss(self, inputs: Tensor, targets: Tensor, weight: float | None = None) -> Tensor:
        """Task loss plus penalty of one batch; its sums go to the epoch's. weight: of a rank's part of it."""
        with self.settings.autocast(self.device):
            outputs = self.forward(inputs)
        loss = self.task.loss(outputs, targets)
        if weight != 0:
            self.sums.add_batch(self.task, loss, outputs, targets)
        if self.teacher is not None:
            with self.settings.autocast(self.device):
                taught = self.teacher(inputs)
            loss = self.teacher.loss(self.task, loss, outputs, taught)
        if weight is not None:
            loss = loss * weight
        if self.penalty is not None and self.quantizer is not None:
            loss = loss + self.penalty(self.quantizer, self.progress)
        return loss

    def _measure(self) -> dict[str, Any]:
        """The epoch's row of metrics."""
        row: dict[str, object] = {"epoch": self.epoch + 1, "train": self.task.finish(self.sums.means(self.ranks))}
        with self.finish.weights():
            if self.val is not None:
                row["val"] = evaluate(self.model, self.val, self.task, self.ranks)
            row |= self.ranks.told(self._sizes)
        follow_first(self)
        row["seconds"] = round(self.seconds, 3)
        row["examples_per_second"] = round(self.data.train.examples / max(self.seconds, 1e-9), 1)
        row["lr"] = self.optimizers.param_groups[0]["lr"]
        return row

    def _sizes(self) -> dict[str, Any]:
        row = size_row(self.model, self.quantizer, self.size)
        if self.penalty is not None and self.quantizer is not None:
            row |= self.penalty.epoch_ended(self.quantizer, self.progress)
        return row

    # ---- state ----------------------------------------------------------------------------------------------

    def _check_weights(self) -> None:
        """See that the weights are finite before they are saved. Raises: Diverged."""
        self.watch.check(self.epoch + 1, self.ranks)
        finite = [torch.isfinite(param.detach()).all() for param in self.model.parameters()]
        (broken,) = self.ranks.largest(not bool(torch.stack(finite).all()))
        if broken:
            raise Diverged(self.epoch + 1, -(-self.batch // self.settings.accumulate))
