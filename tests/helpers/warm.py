"""Programs in processes of their own, started as forks of one that has imported torch and the package.

What differs from a start by hand are the seconds that importing takes: `run` is `subprocess.run([sys.executable,
*words])`, with output as text. One such process serves all tests of a test process.

The server reads a line of JSON for each program, and answers with the number of its process; then, when that has
ended, with its exit code.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
MODULES = (
    "torch._dynamo",  # which each optimizer imports
    "diffq_exp.sweeps.launch", "diffq_exp.command.check", "diffq_exp.runs.run", "diffq_exp.runs.loading",
    "diffq_exp.quant.kernels.cpu.kernels", "diffq_exp.storage.contexts",
)  # fmt: skip


class Program:
    """A program that runs; `pid` is its process."""

    def __init__(self, words: list[str], cwd: Path, **environment: str) -> None:
        self._server = _server()
        self._out, self._err = self._server.files()
        asked = {"words": words, "cwd": str(cwd), "out": str(self._out), "err": str(self._err), "env": environment}
        self.words = words
        self.pid = int(self._server.ask(json.dumps(asked)))

    @property
    def stdout(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def end(self) -> subprocess.CompletedProcess[str]:
        code = int(self._server.answer())
        return subprocess.CompletedProcess(self.words, code, self.stdout, self._err.read_text())


def run(words: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """python *words, which are a script, or -c and a text, or -m and a module, and arguments."""
    return Program(words, cwd, **environment).end()


class _Server:
    def __init__(self) -> None:
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        self._process = subprocess.Popen(
            [sys.executable, __file__], env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._folder, self._count = Path(tempfile.mkdtemp(prefix="warm-")), 0
        atexit.register(self._close)

    def files(self) -> tuple[Path, Path]:
        """New ones, for what a program prints."""
        self._count += 1
        return self._folder / f"{self._count}.out", self._folder / f"{self._count}.err"

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _close(self) -> None:
        self._process.communicate()  # the end of its input is its end
        shutil.rmtree(self._folder)


@cache
def _server() -> _Server:
    return _Server()


# ---- in the server -----------------------------------------------------------------------------------------------


def main() -> None:
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _work(asked)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _work(asked: dict[str, Any]) -> None:
    """In the child: never returns."""
    code: Any = 1
    for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    try:
        os.chdir(asked["cwd"])
        os.environ.update(asked["env"])
        sys.path[:0] = [asked["cwd"], *asked["env"].get("PYTHONPATH", "").split(os.pathsep)]
        code = _do(asked["words"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _do(words: list[str]) -> int:
    how, what, *rest = words if words[0] in ("-c", "-m") else ("", *words)
    sys.argv = [what if how != "-c" else "-c", *rest]
    if how == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    elif how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(what, run_name="__main__")
    return 0


if __name__ == "__main__":
    main()
