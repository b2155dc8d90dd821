"""Small files that claim much: refused, in time and memory that are in proportion to the file and the network."""

import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import storage_peak, stored_networks
from helpers.storage_models import changed, good_file

from diffq_exp import storage
from diffq_exp.stored.packing import pack_bits

pytestmark = pytest.mark.skipif(not storage_peak.resettable(), reason="no /proc that tells peaks of memory")

TESTS = Path(storage_peak.__file__).parents[1]
SECONDS = 2.0


def reading(how: str, *paths: Path) -> list[str]:
    """What is said by a process that reads files, one after the other; each is bounded."""
    command = [sys.executable, storage_peak.__file__, how, *map(str, paths)]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(paths)
    for path, took in zip(paths, lines, strict=True):
        size = path.stat().st_size
        most = 10 * (size / 2**20 + took["network_mb"]) + 64
        assert took["seconds"] < SECONDS and took["mb"] <= most, f"{path.name}: {size} bytes, {most:.0f} MB, {took}"
    return [took["said"] for took in lines]


def claim(entries: int, coding: str, group_size: int):
    """The first tensor has so many entries: of one width, or of as many widths as words decode without an end."""

    def change(parts):
        row = parts.index["tensors"][0]
        bits, models, words = {
            "ans": (b"\x40", b"\0", b""),
            "ans, bits too": (b"\x24", b"\0\0\0\0", b""),
            "packed": (b"\x40", b"", b"\0" * 400),
            "packed, no bits": (b"\0", b"", b""),
        }[coding]
        for name, place, data in (("levels", 8, words), ("bits", 9, bits), ("models", 10, models)):
            parts.entries[name] = np.append(np.frombuffer(data, np.uint8), parts.entries[name][row[place] :])
            row[place] = len(data)
        row[1], row[4], row[5] = [entries], group_size, None
        row[6:8] = ["ans" if "ans" in coding else "packed", "ans" if "too" in coding else "packed"]

    return change


@pytest.mark.parametrize("how", ["read", "load", "load_model"])
def test_a_tensor_without_end(tmp_path, how):
    """Up to a million entries may be plausible, where no network says otherwise; more are not."""
    tiny = storage.serialize(stored_networks.network(), stored_networks.config())
    good, paths = good_file("auto") if how == "load" else tiny, []
    for coding in ("ans", "ans, bits too", "packed", "packed, no bits"):
        for entries, group_size in ((10**6, 1), (10**9, 0), (10**9, 1), (2**40, 0), (2**40, 8)):
            paths.append(tmp_path / f"{coding}, {entries}, {group_size}")
            paths[-1].write_bytes(changed(good, claim(entries, coding, group_size)))
    for path, said in zip(paths, reading(how, *paths), strict=True):
        assert str(path) in said or (how == "read" and str(10**6) in path.name and not said)


def test_an_index_of_much_json(tmp_path):
    """As much text as the bytes of the index allow, all of it objects."""
    paths = []
    for place, text in enumerate([b"[],", b"{},", b"0.5,", b'"",', b"[[[[]]]],"]):
        body = b'{"tensors":[' + text * (12 * 2**20 // len(text)) + b'0],"x":"'
        noise = random.Random(0).randbytes(2**20 // 6)

        def change(parts, body=body, noise=noise):
            parts.index_bytes = zlib.compress(body + noise.hex().encode() + b'"}', 9)

        paths.append(tmp_path / str(place))
        paths[-1].write_bytes(changed(good_file("auto"), change))
    assert all(str(path) in said for path, said in zip(paths, reading("load", *paths), strict=True))


def test_a_configuration_of_a_large_network(path):
    """What it describes is compared with what is stored before it is built."""
    config = stored_networks.config()
    config["model"]["keys"]["num_classes"] = 1_500_000
    path.write_bytes(storage.serialize(stored_networks.network(), config))
    assert str(path) in reading("load_model", path)[0]


def test_many_tensors_of_wide_alphabets(path):
    """The frequencies of an alphabet are many more than the bytes that ask for them."""
    table, models = pack_bits(np.arange(1, 16).astype(np.uint8)), bytes([1, 0, 0]) * 15
    number = 1000

    def change(parts):
        parts.index["tensors"] = [
            [f"w{i}", [15], "float32", "minmax", 1, None, "ans", "packed", 0, len(table), len(models)]
            for i in range(number)
        ]
        parts.index |= {"floats": [], "buffers": [], "tied": {}}
        parts.entries = {
            "levels": np.empty(0, np.uint8), "bits": np.tile(table, number),
            "models": np.tile(np.frombuffer(models, np.uint8), number),
            "scales": np.zeros(2 * number, np.float32), "floats": np.empty(0, np.uint8),
        }  # fmt: skip

    path.write_bytes(changed(good_file("auto"), change))
    reading("read", path)
