"""One run from its config to its numbers: build, train, store, read back, measure.

The scores that a run reports are those of the file it leaves, read back into a fresh network.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import storage
from ..command.consumption import only_afterwards
from ..command.signature import labels
from ..common.files import user_path
from ..common.units import MB
from ..data import Data
from ..parallel.batch_norm import synchronised
from ..parallel.ranks import ALONE, Ranks
from ..quant.quantizer import Quantizer
from ..results.intact import file_checksum
from ..results.metrics import read_rows
from ..results.records import RunRecord
from ..results.run_files import METRICS, MODEL
from ..stored.network import StoredModel
from ..tasks import Task
from ..tracking.tracker import Tracker
from ..training.averaging import Averages
from ..training.clock import Clock
from ..training.distillation import Teacher
from ..training.finish import Finish
from ..training.float_precision import AUTO, MEANWHILE, choose_precision
from ..training.measure import evaluate, own_share
from ..training.settings import Listener, Settings
from ..training.size_record import float32_mb, size_row
from ..training.stopping import StopFlag
from ..training.trainer import Trainer
from .build import (
    build,
    build_data,
    build_model,
    build_optimizers,
    build_penalty,
    build_size,
    build_task,
    check_takes,
)
from .data_record import check_alike, check_unchanged, describe, tell_if_sources_changed
from .display import Display, summary
from .file_target import file_target
from .loading import load_model, load_weights, stored_config
from .read_back import read_back
from .run_folder import RunFolder
from .sources import as_teacher, match_start
from .tracker_listener import TrackerListener

log = logging.getLogger("diffq_exp")


class Session:
    """The objects of one run, and what is done with them. `close()` belongs in a `finally`."""

    def __init__(
        self,
        cfg: DictConfig,
        folder: RunFolder,
        choices: dict[str, str],
        device: torch.device,
        stop: StopFlag,
        record: RunRecord,
        ranks: Ranks = ALONE,
    ) -> None:
        self.cfg, self.folder, self.choices, self.device = cfg, folder, choices, device
        self.stop, self.record, self.ranks = stop, record, ranks
        self.clock = Clock(record.seconds or 0.0)
        self.display: Display | None = None
        self.tracker: Tracker | None = None

    def run(self) -> RunRecord:
        """Do all of it; -> the record of the finished run. Raises: Diverged, Interrupted, ValueError, ..."""
        data = self._data()
        with self.ranks.agreeing():
            trainer = self._build(data)
        trainer.fit(self.stop)
        if self.display is not None:
            self.display.close()
        return self._measure(trainer)

    def _data(self) -> Data:
        """The data, equal on all ranks."""
        with self.ranks.agreeing():
            if self.ranks.first:
                self.tracker = build(self.cfg.tracking)
            data = build_data(self.cfg, self.device)
        check_alike(data, self.ranks)
        return data

    def _build(self, data: Data) -> Trainer:
        """All objects of the run."""
        cfg = self.cfg
        self._keep_to(data)
        match_start(cfg, data)
        model = build_model(cfg, data, self.device)
        check_takes(model, data)
        if cfg.sync_batch_norm and self.ranks.world > 1:
            model = synchronised(model)
        if cfg.init_from is not None:
            load_weights(model, user_path(cfg.init_from), cfg.init_strict or only_afterwards(cfg))
        task = build_task(cfg, data)
        self.record = replace(self.record, headline=task.headline(data))
        optimizers, quantizer = build_optimizers(cfg, model)
        size, target = build_size(cfg), file_target(cfg, self.choices, data, model, quantizer)
        self.record = replace(self.record, target_mb=None if target is None else target.bytes / MB)
        storage.check_storable(quantizer if quantizer is not None else model)
        log.info(summary(data, labels(cfg, self.choices)["model"], model, quantizer))
        return Trainer(
            model,
            quantizer,
            optimizers,
            build(cfg.scheduler),
            task,
            data,
            self._settings(),
            device=self.device,
            folder=self.folder.path,
            run_id=self.record.run_id or "",
            listeners=self._listeners(task, data) if self.ranks.first else [],
            penalty=build_penalty(cfg, size, target),
            size=size,
            teacher=self._teacher(data),
            finish=Finish(
                None if cfg.average_decay is None else Averages(model, cfg.average_decay),
                cfg.batch_norm_batches,
                cfg.round_penalty,
                target,
            ),
            clock=self.clock,
            ranks=self.ranks,
        )

    def _listeners(self, task: Task, data: Data) -> list[Listener]:
        self.display = Display(self.cfg.epochs, task.headline(data), data.unit)
        assert self.tracker is not None
        return [self.display, TrackerListener(self.tracker, self.folder, self._config())]

    def _keep_to(self, data: Data) -> None:
        """Record what the data are. Raises: ValueError where the run began with others."""
        check_unchanged(self.record.data, data, self.folder.path)
        tell_if_sources_changed(self.record, self.cfg, data)
        self.record = replace(self.record, data=describe(data))
        self.folder.write_record(self.record)

    def _settings(self) -> Settings:
        keys = ("accumulate", "clip", "precision", "compile", "checkpoint_minutes")
        epochs = 0 if only_afterwards(self.cfg) else self.cfg.epochs
        return Settings(epochs=epochs, **{key: self.cfg[key] for key in keys})

    def _teacher(self, data: Data) -> Teacher | None:
        cfg = self.cfg
        if cfg.teacher is None or only_afterwards(cfg):
            return None
        source = user_path(cfg.teacher)
        model = as_teacher(load_model(source, allow=[cfg.model._target_]), data, source)
        return Teacher(model.to(self.device), cfg.teacher_weight, cfg.teacher_temperature)

    def _config(self) -> dict[str, Any]:
        config = OmegaConf.to_container(self.cfg, resolve=True)
        assert isinstance(config, dict)
        return {
            **config,
            "signature": self.folder.signature,
            "choices": {**self.choices, **labels(self.cfg, self.choices)},
        }

    # ---- at the end -----------------------------------------------------------------------------------------

    def _measure(self, trainer: Trainer) -> RunRecord:
        """Store the network, read it back into a fresh one, and measure that on the test part, once."""
        data, task, ranks = trainer.data, trainer.task, self.ranks
        kept: dict[str, StoredModel] = {}
        sizes = ranks.told(lambda: self._store(trainer, kept))
        learned = trainer.quantizer.learned() if trainer.quantizer is not None else {}
        weights = {name: value for name, value in trainer.model.state_dict().items() if name not in learned}
        fresh = self._fresh_model(data)
        fresh.load_state_dict(weights)
        test_part = own_share(data.test, ranks)
        headline, float32 = task.headline(data), evaluate(fresh, test_part, task, ranks)
        ranks.told(lambda: read_back(self.folder.path / MODEL, fresh, kept["stored"]))
        ranks.copy_first([*fresh.parameters(), *fresh.buffers()])
        test: dict[str, float | None] = {**evaluate(fresh, test_part, task, ranks)}
        target = self.record.target_mb
        return replace(
            self.record,
            status="finished",
            epochs=trainer.settings.epochs,
            test={**test, headline.float32_name: float32.get(headline.name)},
            val=evaluate(fresh, trainer.val, task, ranks) if trainer.val is not None else {},
            checksum=ranks.told(lambda: file_checksum(self.folder.path / MODEL)),
            target_met=None if target is None else sizes["size_mb"]["file"] <= target,
            **sizes,
        )

    def _store(self, trainer: Trainer, kept: dict[str, StoredModel]) -> dict[str, Any]:
        """Write the file; -> sizes and bits of the record. kept: gets what was stored."""
        model, quantizer, data = trainer.model, trainer.quantizer, trainer.data
        stored = kept["stored"] = self._stored(data, model, quantizer, trainer.task)
        config = stored_config(self.cfg, self.choices, data, model)
        size = storage.save(stored, self.folder.path / MODEL, config, coding=self.cfg.storage.coding)
        learned = set(quantizer.learned()) if quantizer is not None else set()
        sizes = size_row(model, quantizer, trainer.size)
        sizes["size_mb"] |= {"float32": float32_mb(model, learned)}
        sizes["size_mb"] |= {"packed": stored.packed_bytes() / MB, "file": size / MB}
        if zero_rows := stored.zero_rows():
            sizes["bits"]["zero_rows"] = zero_rows
        return sizes

    def _stored(self, data: Data, model: nn.Module, quantizer: Quantizer | None, task: Task) -> StoredModel:
        """The network in the form that is written, its floats in the precision that was asked for."""
        source, options = quantizer if quantizer is not None else model, self.cfg.storage
        precision = options.float
        if precision == AUTO:
            most = "float16" if self.record.target_mb is None else MEANWHILE
            part = data.val if data.val is not None else data.train
            stored = partial(storage.stored_model_of, source, fold=bool(options.fold))
            precision = choose_precision(stored, self._fresh_model(data), part, task, most)
        return storage.stored_model_of(source, precision, bool(options.fold))

    def _fresh_model(self, data: Data) -> nn.Module:
        cfg = self.cfg.copy()
        if cfg.model.get("pretrained"):
            cfg.model.pretrained = False  # every weight comes from the run
        return build_model(cfg, data, self.device).eval()

    def track_again(self) -> None:
        """Track a run that had ended before: to the agent of a W&B sweep it is a trial as any other."""
        self.tracker = build(self.cfg.tracking)
        rows = read_rows(self.folder.path / METRICS)
        TrackerListener(self.tracker, self.folder, self._config()).started(self.record.run_id or "", rows)
        self.close(self.record, 0 if self.record.status == "finished" else 1)

    def close(self, record: RunRecord, code: int) -> None:
        """End the display and the tracker, whatever happened."""
        if self.display is not None:
            self.display.close()
        path = self.folder.path / MODEL
        if self.tracker is not None:
            self.tracker.finish(record.to_json(), path if record.status == "finished" else None, code)
            if self.tracker.url_or_dir is not None:
                log.info(f"W&B: {self.tracker.url_or_dir}")
