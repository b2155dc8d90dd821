"""A process of its own that reads stored networks and says what it took: read|load|load_model=FILE ...

Prints a line of JSON for each: seconds of CPU, megabytes by which the peak of memory grew over what was there,
megabytes of the network it was read into, and what was said.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from contextlib import suppress
from pathlib import Path


def resettable() -> bool:
    """Whether this system can tell the peak of a part of a process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return "VmHWM" in Path("/proc/self/status").read_text()
    except OSError:
        return False


def megabytes(key: str) -> float:
    """VmHWM is the peak since the last reset, VmRSS is now."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) / 1024


class Growth:
    """with Growth() as growth: ...; then growth.mb and growth.seconds."""

    def __enter__(self) -> Growth:
        gc.collect()
        with suppress(OSError, AttributeError):  # what was freed must not count as there before
            ctypes.CDLL(None).malloc_trim(0)
        self._before, self._started = megabytes("VmRSS"), time.process_time()
        Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._started
        self.mb = megabytes("VmHWM") - self._before


def main(*asked: str) -> None:
    import torch
    from helpers import storage_models, stored_networks

    import diffq_exp
    from diffq_exp import storage
    from diffq_exp.runs import rebuild

    torch.set_num_threads(1)
    model = stored_networks.network()  # builds what load_model builds
    rebuild.build_stored_model(storage.stored_model_of(model), stored_networks.config())
    storage.serialize(model)  # what is imported or allocated once
    gc.freeze()  # so that collecting takes no time in what is there for good
    models = {"load": storage_models.wide()}
    readers = {
        "read": storage.read, "load": lambda path: storage.load(path, models["load"]),
        "load_model": diffq_exp.load_model,
    }  # fmt: skip
    for word in asked:
        how, _, path = word.partition("=")
        network = sum(value.nbytes for value in models.get(how, model).state_dict().values()) / 2**20
        said = ""
        with Growth() as growth:
            try:
                readers[how](path)
            except ValueError as fault:
                said = str(fault)
        print(json.dumps({"seconds": growth.seconds, "mb": growth.mb, "network_mb": network, "said": said[:500]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
