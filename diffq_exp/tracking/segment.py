"""A W&B run of this process: the folder that it writes, its helper process (wandb-core), the thread that calls it.

All calls of wandb are queued for one daemon thread, so that a caller can stop waiting. Nothing waits for an
abandoned segment at exit either: its helper process is ended, and every call that hangs on it then raises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb import Run

_logger = logging.getLogger(__name__)
_wandb_logger = logging.getLogger("wandb")

HISTOGRAM = "bits/histogram"
_TEARDOWN_SECONDS = 3.0

# Wishes, left out where the installed wandb does not take them: W&B does not promise the x_ ones.
_WISHES = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "symlink": False,
    "reinit": "create_new",
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,  # seconds that a killed run loses, instead of 15
    "finish_timeout": 300.0,  # so that a process that never closes its segment ends too
    "finish_timeout_raises": True,
}

# The second is W&B's own account of user, host and paths, without which it watches nothing; the hardware stands in
# result.json.
_ON_THE_MACHINE = ("x_disable_stats", "x_disable_machine_info")


class Segment:
    """`folder` is `wandb/[offline-]run-<time>-<id>`, the unit of `wandb sync`; `url` is None when offline.

    system_metrics: whether W&B watches the use of CPU, memory and GPU.
    """

    _run: Run  # of wandb, since `open`

    def __init__(self, wandb: ModuleType, mode: str, system_metrics: bool = False) -> None:
        self.mode, self.folder = mode, Path()
        self._wishes = {**_WISHES, **dict.fromkeys(_ON_THE_MACHINE, not system_metrics)}
        self.url: str | None = None
        self._wandb = wandb
        self._id = ""
        self._helper: subprocess.Popen[bytes] | None = None
        self._log_handlers: list[logging.Handler] = []
        self._reported = False
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="wandb-segment", daemon=True).start()

    def open(self, folder: Path, init: Mapping[str, object], seconds: float) -> None:
        """Start in folder/wandb; `init`: arguments of wandb.init. Raises: any error of wandb, or TimeoutError."""
        settings: dict[str, object] = {"root_dir": str(folder), "mode": self.mode, "init_timeout": seconds}
        with self._abandoned_on_error(), _private_process_state(folder / "wandb" / "cache"):
            self._call(lambda: self._open(settings, init)).result(seconds + 1.0)

    def log(self, values: Mapping[str, object]) -> None:
        """Flat values; "epoch" is the step. Returns at once; an error is reported once."""
        self._call(lambda: self._log(values))

    def close(
        self, summary: Mapping[str, object], file: Path | None, exit_code: int, seconds: float, kind: str = "model"
    ) -> None:
        """Flat summary; the file as an artifact of type `kind`. Raises unless all is on its way or disk in time."""
        with self._abandoned_on_error():
            self._call(lambda: self._close(summary, file, exit_code, kind)).result(seconds)
        self._calls.put(None)

    def older(self) -> list[Path]:
        """The other segments of the same run."""
        name = re.compile(rf"(offline-)?run-\d{{8}}_\d{{6}}-{re.escape(self._id)}(-\d+)?")
        siblings = [folder for folder in self.folder.parent.iterdir() if folder.name != self.folder.name]
        return [folder for folder in siblings if name.fullmatch(folder.name)]

    def _open(self, settings: dict[str, object], init: Mapping[str, object]) -> None:
        for key, value in self._wishes.items():
            with contextlib.suppress(ValueError):
                self._wandb.Settings(**{key: value})
                settings[key] = value
        chosen = self._wandb.Settings(**settings)
        self._helper = _helper_process(self._wandb.setup(chosen))
        before = list(_wandb_logger.handlers)
        self._run = self._wandb.init(**init, settings=chosen)
        self._log_handlers = [handler for handler in _wandb_logger.handlers if handler not in before]
        self.folder, self._id = Path(self._run.dir).parent, self._run.id
        self.url = self._run.url if self.mode == "online" else None

    def _log(self, values: Mapping[str, object]) -> None:
        with self._reporting("the row of an epoch"):
            # commit: else the last row waits for the next; W&B itself drops steps that its server has
            self._run.log(with_histogram(values, self._wandb.Histogram), step=values["epoch"], commit=True)

    def _close(self, summary: Mapping[str, object], file: Path | None, exit_code: int, kind: str) -> None:
        with self._reporting("the summary"):
            self._run.summary.update(with_histogram(summary, self._wandb.Histogram))
        if file is not None and file.is_file():
            with self._reporting(f"the {kind}"):
                self._log_file(file, kind)
        self._run.finish(exit_code=exit_code)
        self._wandb.teardown()

    def _log_file(self, file: Path, kind: str) -> None:
        artifact = self._wandb.Artifact(f"{kind}-{self._id}", type=kind)
        # immutable: refers to the file where it stands, instead of a copy outside the run's folder
        artifact.add_file(str(file.absolute()), policy="immutable")
        self._run.log_artifact(artifact)

    @contextlib.contextmanager
    def _reporting(self, item: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._reported:
                _logger.warning("W&B did not take %s: %s", item, error)
            self._reported = True

    def _call(self, function: Callable[[], None]) -> Future[None]:
        future: Future[None] = Future()
        self._calls.put(lambda: _fulfil(future, function))
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    @contextlib.contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """On any error, Ctrl-C included, end the helper process and the calls that wait for it."""
        try:
            yield
        except BaseException:
            self._reported = True  # later failures follow from this error
            if self._helper is not None:
                _end(self._helper)
            with contextlib.suppress(Exception):
                self._call(self._wandb.teardown).result(_TEARDOWN_SECONDS)  # takes back its hook at exit
            for handler in self._log_handlers:  # wandb leaves them, and they write into a folder that is deleted
                _wandb_logger.removeHandler(handler)
                handler.close()
            self._calls.put(None)
            raise


def with_histogram(values: Mapping[str, object], histogram: Callable[..., object]) -> dict[str, object]:
    """Flat values, their histogram of the bits of groups as W&B's."""
    edges, counts = values.get(f"{HISTOGRAM}/edges"), values.get(f"{HISTOGRAM}/counts")
    kept = {key: value for key, value in values.items() if not key.startswith(f"{HISTOGRAM}/")}
    return {**kept, HISTOGRAM: histogram(np_histogram=(counts, edges))} if counts and edges else kept


def bytes_on_disk(segment: Path) -> int:
    return sum(file.stat().st_size for file in segment.glob("*.wandb"))


def _fulfil(future: Future[None], function: Callable[[], None]) -> None:
    try:
        function()
        future.set_result(None)
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # wandb calls sys.exit when its helper failed
        future.set_exception(RuntimeError(repr(error)))


@contextlib.contextmanager
def _private_process_state(cache: Path) -> Iterator[None]:
    """While wandb starts: nobody to ask for a key, a helper of our own, its caches and logs in `cache`.

    Afterwards sys.exit and sys.excepthook, which wandb replaces, are as they were.
    """
    environment = {"WANDB_SERVICE": None, "WANDB_ERROR_REPORTING": "false"}
    environment |= {"WANDB_CACHE_DIR": str(cache), "WANDB_DATA_DIR": str(cache)}
    before = {key: os.environ.get(key) for key in environment}
    stdin, leave, hook = sys.stdin, sys.exit, sys.excepthook
    try:
        _set_environment(environment)
        with open(os.devnull) as nobody:
            sys.stdin = nobody
            yield
    finally:
        sys.stdin, sys.exit, sys.excepthook = stdin, leave, hook
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def _helper_process(state: object) -> subprocess.Popen[bytes] | None:
    """wandb-core, to which W&B has no public way. None if it is not found: then it cannot be ended early."""
    service = getattr(getattr(state, "_connection", None), "_proc", None)
    return getattr(service, "_process", None) or getattr(service, "_internal_proc", None)  # 0.31, 0.19


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # lets it remove its socket
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(1.0)
