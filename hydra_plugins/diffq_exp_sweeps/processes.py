"""The server from which the processes of jobs are forked, and what their exit codes mean."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.context import BaseContext

PRELOAD = ["diffq_exp.runs.job", "diffq_exp.runs.session", "diffq_exp.quant.kernels.cpu", "wandb", "torch._dynamo"]


def start_server() -> None:
    """Start the server of processes deaf to Ctrl-C, which would break its imports; its children stay deaf to it.

    Ours is only kept waiting meanwhile. The resource tracker comes first: as it starts it unblocks SIGINT again.
    """
    if context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def context() -> BaseContext:
    """forkserver where there is one; it stays for all jobs, and has imported what takes long."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


def cause(exitcode: int | None) -> str:
    """Why a process ended, in words."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended with exit code {exitcode}"
    name = signal.Signals(-exitcode).name if -exitcode in set(signal.Signals) else f"signal {-exitcode}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
