"""Do the steps of a page in this folder, each in a fork of this process (see `helpers/warm.py`).

A step is ["run", module, words] for `python -m module words`, or ["python", text]. Reads them as JSON from a file,
and prints the number and the output of the first that fails, or nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

RUN = "outputs/digits-..."  # in the pages, the folder of a run


def main() -> int:
    import torch
    from torch.nn.functional import cross_entropy

    def given() -> dict[str, Any]:
        """What the Python blocks take for granted."""
        from helpers.quant_models import Net, images

        loader = [(images(), torch.arange(len(images())) % 5)] * 2
        return {
            "torch": torch,
            "cross_entropy": cross_entropy,
            "loader": loader,
            "penalty": 1.0,
            "model": Net(),
            "MyNetwork": Net,
        }

    for number, step in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        log = Path(f"step{number}.log")
        child = os.fork()
        if child == 0:
            _do(step, log, given)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            print(f"step {number}, {step}:\n{log.read_text()}")
            return 1
    return 0


def _do(step: list[Any], log: Path, given: Any) -> None:
    """In the child: never returns."""
    code = 1
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            if step[0] == "run":
                code = importlib.import_module(step[1]).main([_folder(word) for word in step[2]])
            else:
                exec(compile(_folder(step[1]), "block", "exec"), given())
                code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _folder(text: str) -> str:
    if RUN not in text:
        return text
    run = min(path.parent for path in Path("outputs").glob("*/model.safetensors"))
    return text.replace(RUN, str(run))


if __name__ == "__main__":
    sys.exit(main())
