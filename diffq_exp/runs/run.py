"""A run in its folder: whether there is anything left to do, and how it ended, whatever happened.

Statuses of result.json: running, finished, diverged, interrupted, failed. `running` with a free lock means that the
process was killed.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf, open_dict

from ..command.request import Request
from ..command.schema import conf_dir
from ..command.signature import only_afterwards, record_of, run_name, signature, unused_keys, without
from ..results.records import LOG, MODEL, RESULT, read_json
from ..training.stopping import Diverged, Interrupted, StopFlag
from ..training.trainer import CHECKPOINT
from .build import pick_device
from .display import FileLog, show_result
from .machine import describe_machine, prepare_torch
from .run_folder import FolderBusy, FolderError, RunFolder
from .session import Session

log = logging.getLogger("diffq_exp")
IfBusy = Literal["refuse", "wait", "raise"]
FINISHED, FAILED, MISTAKE, SIGNAL = 0, 1, 2, 128  # exit codes; SIGNAL plus the number, as shells have it


def run(cfg: DictConfig, folder: Path, request: Request, if_busy: IfBusy = "refuse") -> int:
    """Do the run that `cfg` describes, or what is left of it, in `folder`; -> exit code.

    if_busy: where another process is at work on the run, "refuse", "wait" for it, or "raise" FolderBusy.
    """
    name, record = signature(cfg), record_of(cfg, request.choices, request.overrides, request.hydra)
    try:
        fault = None
        if only_afterwards(cfg) and cfg.init_from is None:
            code, source = _float_run(cfg, folder, request, "raise" if if_busy == "raise" else "wait")
            if code >= SIGNAL:
                return code
            if code != FINISHED:
                fault = f"its float32 network, {source}, did not finish"
            with open_dict(cfg):
                cfg.init_from = str(source)
        with RunFolder(folder, name, wait=if_busy == "wait") as held:
            if cfg.restart and "SLURM_RESTART_COUNT" not in os.environ:  # a job queued again began anew already
                held.set_aside()
            if fault is not None:
                return _fail(fault, held, record)
            return _finish(cfg, held, request, record)
    except FolderBusy as busy:
        if if_busy == "raise":
            raise
        log.error(str(busy))
        return MISTAKE
    except (FolderError, ValueError, OSError) as broken:  # of the folder; what goes wrong in the run is recorded
        log.error(" ".join(str(broken).split()))
        return MISTAKE


def _fail(reason: str, folder: RunFolder, record: dict[str, Any]) -> int:
    """Record a run that cannot begin."""
    log.error(f"failed: {reason}")
    folder.write_result({"status": "failed", **record, "reason": reason})
    return FAILED


def _float_run(cfg: DictConfig, folder: Path, request: Request, if_busy: IfBusy) -> tuple[int, Path]:
    """Train the float32 network of a post-training quantization, or take the finished run of it."""
    plain = cfg.copy()
    with open_dict(plain):
        plain.quantizer = OmegaConf.load(conf_dir() / "quantizer" / "none.yaml")
        plain.restart = False
    choices = {**request.choices, "quantizer": "none"}
    source = folder.parent / run_name(plain, choices)
    if read_json(source / RESULT).get("status") == "finished":
        log.info(f"the float32 network is that of {source}")
        return FINISHED, source
    log.info(f"the float32 network comes first: {source}")
    overrides = [*without(request.overrides, {"quantizer", *unused_keys(plain)}), "quantizer=none"]
    return run(plain, source, Request(choices, overrides), if_busy), source


def _finish(cfg: DictConfig, folder: RunFolder, request: Request, record: dict[str, Any]) -> int:
    """Do what is left of a run whose folder is held."""
    device = pick_device(cfg.device)
    prepare_torch(cfg.seed, cfg.threads, device)
    earlier, machine = folder.result(), describe_machine(device)
    if earlier.get("status") == "diverged" or (
        earlier.get("status") == "finished" and (folder.path / MODEL).is_file()
    ):
        if "WANDB_SWEEP_ID" in os.environ:  # a trial of an agent: the agent's own run has to hear the numbers
            Session(cfg, folder, request.choices, device, StopFlag(), earlier["run_id"]).tell_again(earlier)
        return _tell_again(earlier, folder, machine["git_commit"])
    run_id = earlier.get("run_id") or f"{folder.signature}-{secrets.token_hex(4)}"
    result: dict[str, Any] = {"status": "running", "run_id": run_id, **record, **machine}
    folder.write_result({**result, "seconds": earlier.get("seconds", 0.0)})
    folder.write_config(cfg, request)
    started = time.monotonic()
    code = FAILED
    with FileLog(folder.path / LOG), StopFlag() as stop:
        session = Session(cfg, folder, request.choices, device, stop, run_id)
        try:
            result |= session.run()
            code = FINISHED
        except BaseException as fault:
            code, ending = _ending(fault, stop, folder.path)
            result |= ending
        finally:
            result["seconds"] = round(earlier.get("seconds", 0.0) + time.monotonic() - started, 2)
            result["ended"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            try:
                folder.write_result(result)
            finally:
                session.close(result, code)
        if code == FINISHED:
            folder.drop_earlier()
            show_result(result, folder.path)
    return code


def _ending(fault: BaseException, stop: StopFlag, folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and fields of the result for a run that did not finish; says it to the user in one line."""
    reason = " ".join(str(fault).split())
    if isinstance(fault, Diverged):
        kept = "; the checkpoint before it is kept" if (folder / CHECKPOINT).is_file() else ""
        log.error(f"diverged: {reason}{kept}")
        return FAILED, {"status": "diverged", "reason": reason, "epoch": fault.epoch, "step": fault.step}
    if isinstance(fault, (Interrupted, KeyboardInterrupt)):
        log.warning("interrupted; the same command goes on where the run stopped (restart=true would begin anew)")
        return SIGNAL + (stop.signal or 2), {"status": "interrupted"}
    expected = isinstance(fault, (ValueError, OSError))  # a file or value that only loading could judge
    if not expected:
        reason = f"{type(fault).__name__}: {reason} (where: see {folder / LOG})"
    log.error(f"failed: {reason}")
    log.debug("where:", exc_info=fault)  # in train.log
    return MISTAKE if expected else FAILED, {"status": "failed", "reason": reason}


def _tell_again(result: dict[str, Any], folder: RunFolder, commit: str | None) -> int:
    """Show the result of a run that ended already."""
    by = "" if result.get("git_commit") == commit else f" by commit {str(result.get('git_commit'))[:10]}"
    if result["status"] == "diverged":
        log.error(f"{folder.path} diverged already{by}: {result['reason']}; restart=true does it again")
        return FAILED
    log.info(f"{folder.path} is finished already{by}; restart=true does it again")
    show_result(result, folder.path)
    return FINISHED
