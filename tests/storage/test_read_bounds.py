"""Small files that claim much: refused, in time and memory that are in proportion to the file and the network."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from helpers import storage_peak, stored_networks, warm
from helpers.storage_models import good_file
from helpers.stored_files import changed, deflated

from diffq_exp import storage
from diffq_exp.stored.packing import pack_bits

pytestmark = pytest.mark.skipif(not storage_peak.resettable(), reason="no /proc that tells peaks of memory")

SECONDS = 2.0


def reading(asked: list[tuple[str, Path]]) -> dict[str, str]:
    """What is said by a process that reads files, each in its way, one after the other; each is bounded."""
    done = warm.run([storage_peak.__file__, *(f"{how}={path}" for how, path in asked)], Path())
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (_, path), took in zip(asked, lines, strict=True):
        size = path.stat().st_size
        most = 10 * (size / 2**20 + took["network_mb"]) + 64
        assert took["seconds"] < SECONDS and took["mb"] <= most, f"{path.name}: {size} bytes, {most:.0f} MB, {took}"
    return {path.name: took["said"] for (_, path), took in zip(asked, lines, strict=True)}


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


GOOD = {
    "load": lambda: good_file("auto"),
    "other": lambda: storage.serialize(stored_networks.network(), stored_networks.config()),
}
CONSTANTS = [
    ([2**40],), ([2**20, 2**20], "int64"), ([2**24], "bool"), ([2**40], "float64", 900), ([9000], "int64", 1300),
]  # fmt: skip


def constant(shape: list[int], kind: str = "float64", number: int = 1):
    """Buffers of one value each, of this shape."""

    def change(parts):
        value = {"float64": 0.5, "int64": 3, "bool": True}[kind]
        parts.index["buffers"] += [[f"more{i}", shape, kind, value] for i in range(number)]

    return change


def without_end(folder: Path, how: str) -> list[Path]:
    """Files with a tensor of more entries than any file may have, or (of 10**6) than another network has."""
    good, paths = GOOD["load" if how == "load" else "other"](), []
    changes = {f"constant {number}": constant(*what) for number, what in enumerate(CONSTANTS)}
    for coding in ("ans", "ans, bits too", "packed", "packed, no bits"):
        for entries, group_size in ((10**6, 1), (10**9, 0), (10**9, 1), (2**40, 0), (2**40, 8)):
            changes[f"{coding}, {entries}, {group_size}"] = claim(entries, coding, group_size)
    for name, change in changes.items():
        paths.append(folder / f"{how} {name}")
        paths[-1].write_bytes(changed(good, change))
    return paths


def much_json(folder: Path) -> list[Path]:
    """As much text as the bytes of the index allow, all of it objects."""
    paths = []
    for place, text in enumerate([b"[],", b"{},", b"0.5,", b'"",', b"[[[[]]]],"]):
        body = b'{"tensors":[' + text * (12 * 2**20 // len(text)) + b'0],"x":"'
        noise = random.Random(0).randbytes(2**20 // 6)

        def change(parts, body=body, noise=noise):
            parts.index_bytes = deflated(body + noise.hex().encode() + b'"}', level=6)

        paths.append(folder / f"json {place}")
        paths[-1].write_bytes(changed(good_file("auto"), change))
    return paths


def large_network(folder: Path) -> Path:
    """What its configuration describes is compared with what is stored before it is built."""
    config = stored_networks.config()
    config["model"]["keys"]["num_classes"] = 1_500_000
    (path := folder / "a large network").write_bytes(storage.serialize(stored_networks.network(), config))
    return path


def wide_alphabets(folder: Path) -> Path:
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

    (path := folder / "wide alphabets").write_bytes(changed(good_file("auto"), change))
    return path


def text_and_tables(folder: Path) -> list[tuple[str, Path]]:
    """As much text, as large a network, as many frequencies as a small file can ask for."""
    others = [("load_model", large_network(folder)), ("read", wide_alphabets(folder))]
    return [("load", path) for path in much_json(folder)] + others


KINDS = (
    "load",
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("read", "load_model", "text and tables")),
)


@pytest.mark.parametrize("kind", KINDS)
def test_small_files_that_claim_much(kind, tmp_path):
    """In one process. A million entries may be plausible, where no network says otherwise; more are not."""
    large = kind == "text and tables"
    asked = text_and_tables(tmp_path) if large else [(kind, path) for path in without_end(tmp_path, kind)]
    for name, said in reading(asked).items():
        plausible = name.startswith("read ") and "1000000" in name
        assert str(tmp_path / name) in said or plausible or name == "wide alphabets", name
