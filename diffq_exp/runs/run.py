"""A run in its folder: whether there is anything left to do, and how it ended, whatever happened.

Statuses of result.json: running, finished, diverged, interrupted, failed. `running` with a free lock means that the
process was killed.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, open_dict

from ..command.consumption import float32_sources, only_afterwards
from ..command.float32_run import float32_config, float32_overrides
from ..command.request import Request
from ..command.signature import record_of, run_name
from ..common.terminal import FileLog
from ..parallel.alike import check_commands
from ..parallel.place import is_tried_again, why_not_anew
from ..parallel.ranks import ALONE, RankLost, Ranks
from ..results.records import RunRecord, known_record
from ..results.run_files import CHECKPOINT, LOG
from ..training.stopping import Diverged, Interrupted, StopFlag
from .build import drop_foreign_keys, pick_device
from .data_record import tell_if_changed
from .display import show_result
from .earlier_run import drop_earlier, set_aside
from .ended import check_can_be_made_again, has_ended, is_whole, mend_metrics
from .file_target import TargetTooSmall
from .machine import describe_machine, prepare_torch
from .run_folder import FolderBusy, FolderError, FollowedFolder, RunFolder
from .session import Session

log = logging.getLogger("diffq_exp")
IfBusy = Literal["refuse", "wait", "raise"]
FINISHED, FAILED, MISTAKE, SIGNAL = 0, 1, 2, 128  # exit codes; SIGNAL plus the number, as shells have it


def run(cfg: DictConfig, folder: Path, request: Request, if_busy: IfBusy = "refuse", ranks: Ranks = ALONE) -> int:
    """Do the run that `cfg` describes, or what is left of it, in `folder`; -> exit code.

    if_busy: where another process is at work on the run, "refuse", "wait" for it, or "raise" FolderBusy.
    ranks: the processes that do the run together, all of which call this. What the first one decides, all do.
    """
    record = record_of(cfg, request.choices, request.overrides, request.hydra)
    try:
        check_commands(ranks, record.signature, bool(cfg.restart), request.overrides)
        ranks.told(RunFolder(folder, record.signature).check_owner)
        error = None
        if wanted := ranks.told(lambda: _wants_float_run(cfg, folder)):
            code, source = _float_run(cfg, folder, request, "raise" if if_busy == "raise" else "wait", ranks)
            if code >= SIGNAL:
                return code
            if code != FINISHED:
                error = f"its float32 network, {source}, did not finish"
            with open_dict(cfg):
                cfg.update({key: str(source) for key in wanted})
        with ExitStack() as stack:
            held = (RunFolder if ranks.first else FollowedFolder)(folder, record.signature, if_busy == "wait")
            ranks.told(lambda: stack.enter_context(held).path)
            if error is not None:
                return _fail(error, held, record)
            if cfg.restart:
                ranks.told(lambda: _begin_anew(folder))
            try:
                return _finish(cfg, held, request, record, ranks)
            except (FolderError, ValueError, OSError):
                if not is_tried_again():
                    held.bring_back()
                raise
    except FolderBusy as busy:
        if if_busy == "raise":
            raise
        log.error(str(busy))
        return MISTAKE
    except (FolderError, ValueError, OSError) as problem:  # with the folder; an error in the run is recorded
        log.error(" ".join(str(problem).split()))
        return MISTAKE


def _begin_anew(folder: Path) -> None:
    """Set an earlier run aside, but for a process that was started again: its run has begun anew already."""
    if why := why_not_anew():
        log.warning(why)
    else:
        set_aside(folder)


def _fail(reason: str, folder: RunFolder, record: RunRecord) -> int:
    """Record a run that cannot begin; the record of a finished one stays."""
    log.error(f"failed: {reason}")
    earlier = folder.record()
    if earlier.status != "finished":
        record = replace(record, run_id=earlier.run_id, seconds=earlier.seconds, data=earlier.data)
        folder.write_record(replace(record, status="failed", reason=reason))
    return FAILED


def _wants_float_run(cfg: DictConfig, folder: Path) -> list[str]:
    """The keys whose network is the float32 run of this one; none where the run has ended already."""
    if not cfg.restart and has_ended(folder, known_record(folder)):
        return []
    return float32_sources(cfg)


def _float_run(cfg: DictConfig, folder: Path, request: Request, if_busy: IfBusy, ranks: Ranks) -> tuple[int, Path]:
    """Train the float32 network that a run begins from or follows, or take the finished run of it."""
    plain = float32_config(cfg)
    choices = {**request.choices, "quantizer": "none"}
    source = folder.parent / run_name(plain, choices)
    if ranks.told(lambda: is_whole(source, known_record(source))):
        log.info(f"the float32 network is that of {source}")
        return FINISHED, source
    log.info(f"the float32 network comes first: {source}")
    again = Request(choices, float32_overrides(cfg, request.overrides))
    return run(plain, source, again, if_busy, ranks), source


def _finish(cfg: DictConfig, folder: RunFolder, request: Request, record: RunRecord, ranks: Ranks) -> int:
    """Do what is left of a run whose folder is held."""
    device = ranks.device or pick_device(cfg.device)
    prepare_torch(cfg.seed, cfg.threads, device)
    earlier, machine = ranks.told(folder.record), describe_machine(device)
    if ranks.told(lambda: has_ended(folder.path, earlier)):
        if not ranks.first:
            return FAILED if earlier.status == "diverged" else FINISHED
        if "WANDB_SWEEP_ID" in os.environ:  # a trial of an agent: the agent's own run needs the numbers
            Session(cfg, folder, request.choices, device, StopFlag(), earlier).track_again()
        return _show_again(earlier, folder, machine["git_commit"], cfg)
    if earlier.status == "finished":
        ranks.told(lambda: check_can_be_made_again(folder.path, earlier, trains=not only_afterwards(cfg)))
    run_id = ranks.told(lambda: earlier.run_id or f"{folder.signature}-{secrets.token_hex(4)}")
    record = replace(
        record, status="running", run_id=run_id, seconds=earlier.seconds or 0.0, data=earlier.data, **machine
    )
    folder.write_record(record)
    folder.write_config(cfg, request)
    with FileLog(folder.path / LOG) if ranks.first else nullcontext(), StopFlag() as stop:
        for line in drop_foreign_keys(cfg, request):
            log.info(line)
        session = Session(cfg, folder, request.choices, device, stop, record, ranks)
        code, error = _carry_out(session, earlier)
    if error is not None and not (_is_begun(error, folder.path) or is_tried_again()):
        (folder.drop if isinstance(error, TargetTooSmall) else folder.bring_back)()
    return code


def _is_begun(error: BaseException, folder: Path) -> bool:
    """Whether the same command goes on with what a run left that ended by an error."""
    return isinstance(error, (Diverged, Interrupted, RankLost, KeyboardInterrupt)) or (folder / CHECKPOINT).exists()


def _carry_out(session: Session, earlier: RunRecord) -> tuple[int, BaseException | None]:
    """Do a run and record how it ends; -> exit code, and the error by which it ended, if any."""
    folder, ranks = session.folder, session.ranks
    code, record, cause = FAILED, session.record, None
    try:
        record = session.run()
        code = FINISHED
    except BaseException as error:
        cause = ranks.cause(error)
        code, ending = _ending(cause, session.stop, folder.path)
        if not isinstance(error, (Diverged, Interrupted)):
            _tell_of_rank(ranks, str(ending.get("reason")), isinstance(cause, RankLost))
        again = earlier.status == "finished" and ending["status"] == "failed"  # the old numbers stay
        record = earlier if again else replace(record, data=session.record.data, **ending)
    finally:
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = replace(record, seconds=round(session.clock.seconds, 2), ended=ended)
        try:
            folder.write_record(record)
        finally:
            session.close(record, code)
    if code == FINISHED:
        if ranks.first:
            drop_earlier(folder.path)
        show_result(record, folder.path)
    return code, cause


def _ending(error: BaseException, stop: StopFlag, folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit code, and fields of the record, of a run that did not finish; logs it in one line."""
    reason = " ".join(str(error).split())
    if isinstance(error, Diverged):
        kept = "; the checkpoint before it is kept" if (folder / CHECKPOINT).is_file() else ""
        log.error(f"diverged: {reason}{kept}")
        return FAILED, {"status": "diverged", "reason": reason, "epoch": error.epoch, "step": error.step}
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        log.warning("interrupted; the same command goes on where the run stopped (restart=true would begin anew)")
        return SIGNAL + (stop.signal or 2), {"status": "interrupted"}
    if isinstance(error, RankLost):
        log.error(f"failed: {reason}; the same command goes on from the last checkpoint")
        return FAILED, {"status": "failed", "reason": reason}
    expected = isinstance(error, (ValueError, OSError))  # a file or value that only loading could judge
    if not expected:
        reason = f"{type(error).__name__}: {reason} (where: see {folder / LOG})"
    log.error(f"failed: {reason}")
    log.debug("where:", exc_info=error)  # in train.log
    return MISTAKE if expected else FAILED, {"status": "failed", "reason": reason}


def _tell_of_rank(ranks: Ranks, reason: str, lost: bool) -> None:
    """Leave the reason to the other ranks; the first one has logged it, another says it where nobody else does."""
    if ranks.failed(reason, lost) and not ranks.first:
        print(f"rank {ranks.rank}: failed: {reason}", file=sys.stderr)


def _show_again(record: RunRecord, folder: RunFolder, commit: str | None, cfg: DictConfig) -> int:
    """Show the result of a run that ended already."""
    by = "" if record.git_commit == commit else f" by commit {str(record.git_commit)[:10]}"
    if record.status == "diverged":
        log.error(f"{folder.path} diverged already{by}: {record.reason}; restart=true does it again")
        return FAILED
    drop_earlier(folder.path)
    mend_metrics(folder.path, record)
    log.info(f"{folder.path} is finished already{by}; restart=true does it again")
    tell_if_changed(record, cfg)
    show_result(record, folder.path)
    return FINISHED
