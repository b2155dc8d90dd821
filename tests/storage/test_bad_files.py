"""Files that are damaged or lie: a ValueError in one line that names the file, soon, and the model untouched."""

import copy
import json
import random
import re
import resource
import time
import zlib

import numpy as np
import pytest
import torch
from safetensors.numpy import save as dump_safetensors
from storage_models import (
    Mixed,
    Net,
    Tied,
    assert_same,
    attached,
    checksum,
    diffq,
    network,
    parts_of,
    put_together,
    snapshot,
)
from torch import nn

from diffq_exp import storage

PATIENCE = 2.0  # seconds of CPU for one file


class Longer(Net):
    def __init__(self):
        super().__init__()
        self.tail = nn.Linear(5, 5)


class NoNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)


@pytest.fixture(scope="module")
def good() -> bytes:
    """A network with tensors of both kinds: rows conv.weight, norm.weight, head.weight; the biases float."""
    quantizer = diffq(network(), group_size=8, exclude=("*.bias",))
    return storage.serialize(quantizer, {"model": {"name": "net"}, "batch_size": 4})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refusal(path, data: bytes | None = None, model: nn.Module | None = None) -> str:
    """What `load` says to a file; it takes no time, and the model stays as it was."""
    if data is not None:
        path.write_bytes(data)
    model = network(seed=1) if model is None else model
    before, started = snapshot(model), time.process_time()
    with pytest.raises(ValueError) as caught:
        storage.load(path, model)
    assert time.process_time() - started < PATIENCE
    assert_same(snapshot(model), before)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def refused_or_loaded(path, data: bytes, model: nn.Module) -> str | None:
    """What `load` says, if it refuses; it must not raise anything else."""
    path.write_bytes(data)
    before = snapshot(model)
    try:
        storage.load(path, model)
    except ValueError as fault:
        assert_same(snapshot(model), before)
        assert str(path) in str(fault) and "\n" not in str(fault)
        return str(fault)
    return None


def changed(data: bytes, change) -> bytes:
    parts = parts_of(data)
    change(parts)
    return put_together(parts)


def test_the_helper_makes_good_files(good, path):
    path.write_bytes(changed(good, lambda parts: None))
    model = network(seed=1)
    storage.load(path, model)
    path.write_bytes(good)
    other = network(seed=2)
    storage.load(path, other)
    assert_same(snapshot(model), snapshot(other))


# ---- damage ---------------------------------------------------------------------------------------------------


def test_cut_short_anywhere(good, path):
    large = network(lambda: Net(width=64))
    whole = storage.serialize(large)
    for data, model, step in ((whole, large, 97), (good, network(seed=1), 31)):
        for length in range(0, len(data), step):
            refusal(path, data[:length], model)
        refusal(path, data[:-1], model)
    assert len(whole) > 50 * 97


def test_longer_than_it_should_be(good, path):
    refusal(path, good + b"\0")
    refusal(path, good + good)


def test_one_bit_flipped(good, path):
    model = network(seed=1)
    source = random.Random(0)
    header = 8 + int.from_bytes(good[:8], "little")
    places = source.sample(range(8 * len(good)), 220) + source.sample(range(8 * header), 80)
    for place in places:
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        refusal(path, bytes(data), model)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04" + b"\0" * 100,
        b"text\n" * 50,
        b"\xff" * 64,
        b"\0" * 64,
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (40).to_bytes(8, "little") + b'{"__metadata__":{"format":[{"a":1}, 2]}}',
        dump_safetensors({"weight": np.zeros(3, np.float32)}),
        dump_safetensors({"weight": np.zeros(3, np.float32)}, {"format": "pt"}),
        dump_safetensors({}, {"format": "diffq_exp.model/1"}),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_another_file(data, path):
    refusal(path, data)


def test_a_folder(tmp_path):
    refusal(tmp_path)


def test_a_file_that_is_not_there(path):
    with pytest.raises((FileNotFoundError, ValueError), match=r"model\.safetensors"):
        storage.load(path, network())


def test_the_checksum_is_of_everything(good, path):
    """A file put together anew, with the old checksum."""
    parts = parts_of(good)
    parts.index["config"]["batch_size"] = 5
    text = zlib.compress(json.dumps(parts.index).encode())
    entries = {"index": np.frombuffer(text, np.uint8), **parts.entries}
    old = parts_of(good)
    wrong = checksum({"index": np.zeros(0, np.uint8), **old.entries}, old.plain)
    assert "checksum" in refusal(path, dump_safetensors(entries, {**parts.plain, "sha256": wrong}))
    assert "checksum" in refusal(path, dump_safetensors(entries, parts.plain))
    right = checksum(entries, parts.plain)
    lied = {**parts.plain, "method": "lsq", "sha256": right}
    assert "checksum" in refusal(path, dump_safetensors(entries, lied))


def test_another_version_of_the_format(good, path):
    text = refusal(path, changed(good, lambda parts: parts.plain.update(format="diffq_exp.model/99")))
    assert "diffq_exp.model/99" in text


@pytest.mark.parametrize("name", ["levels", "widths", "scales", "floats"])
def test_an_entry_is_missing_or_of_another_kind(good, path, name):
    refusal(path, changed(good, lambda parts: parts.entries.pop(name)))
    for kind in (np.float64, np.int64, np.int8, np.float16):
        refusal(path, changed(good, lambda parts, kind=kind: _retype(parts, name, kind)))
    for shape in ((-1, 1), (1, -1)):
        refusal(path, changed(good, lambda parts, shape=shape: _reshape(parts, name, shape)))


def _retype(parts, name, kind):
    parts.entries[name] = parts.entries[name].astype(kind)


def _reshape(parts, name, shape):
    parts.entries[name] = parts.entries[name].reshape(shape)


def test_entries_of_a_type_that_numpy_has_not(good, path):
    """bfloat16 and 8-bit floats stand in a header that is right otherwise."""
    for kind in (b"BF16", b"F8_E4M3"):
        length = int.from_bytes(good[:8], "little")
        header = json.loads(good[8 : 8 + length])
        header["levels"]["dtype"] = kind.decode()
        text = json.dumps(header).encode()
        refusal(path, len(text).to_bytes(8, "little") + text + good[8 + length :])


# ---- an index that lies, under a right checksum ----------------------------------------------------------------

NAME, SHAPE, DTYPE, GRID, GROUP_SIZE, TOP, LEVELS, WIDTHS = range(8)


def in_row(place: int, value, row: int = 0):
    def change(parts):
        parts.index["tensors"][row][place] = value

    return change


def in_float(place: int, value, kind: str = "floats"):
    def change(parts):
        parts.index[kind][0][place] = value

    return change


def in_index(key: str, value):
    return lambda parts: parts.index.update({key: value})


HUGE_SHAPES = [[2**39, 2**39, 2**39], [2**62], [10**30], [2**20, 2**20], [1] * 1000 + [2**40]]
BAD_SHAPES = [[-1], [-6, -3, 3, 3], [6, 3, 3, 3.0], [54.5], ["6"], [None], [[6]], 162, "162", None, {"6": 1}, True]
BAD_SHAPES += [[0], [0, 2**39, 2**39, 2**39], [6, 3, 3], [], [6, 27, 2], [161]]

LIES = {
    **{f"shape {str(shape)[:30]}": in_row(SHAPE, shape) for shape in HUGE_SHAPES + BAD_SHAPES},
    **{f"float shape {str(shape)[:30]}": in_float(1, shape) for shape in HUGE_SHAPES + BAD_SHAPES[:-1]},
    **{f"type {value}": in_row(DTYPE, value) for value in ("float8", "nn", None, 3, ["float32"])},
    **{f"float type {value}": in_float(2, value) for value in ("complex64", "float64", "int8", None, ["float32"])},
    **{f"grid {value}": in_row(GRID, value) for value in ("cubic", "", None, 0, ["minmax"])},
    **{f"group size {value}": in_row(GROUP_SIZE, value) for value in (-1, 7, 0, 2**62, 10**30, 8.0, "8", None)},
    **{f"top {value}": in_row(TOP, value) for value in (0, -1, 2**15, 10**30, 3.5, "3", [3])},
    **{f"levels {value}": in_row(LEVELS, value) for value in (0, -1, 10, 10**9, 2**80, 1.0, "9", None)},
    **{f"widths {value}": in_row(WIDTHS, value) for value in (0, -1, 1, 10**9, 2**80, 1.0, "9", None)},
    **{f"name {value}": in_row(NAME, value) for value in ("norm.weight", "conv.bias", "norm.running_mean", "nope")},
    **{f"name {value!r}": in_row(NAME, value) for value in (3, None, ["conv.weight"], True, {"a": 1}, 0.5)},
    **{f"float name {value!r}": in_float(0, value) for value in (3, None, ["conv.bias"], "conv.weight")},
    **{f"buffer {place} {value!r}": in_float(place, value, "buffers")
       for place in (0, 1, 2) for value in (3, None)},
    **{f"tied {value}": in_index("tied", value) for value in (
        {"other": "nope"}, {"conv.weight": "conv.weight"}, {"conv.weight": "head.weight"},
        {"a": "b", "b": "conv.bias"}, {"other": None}, {"other": ["conv.weight"]}, {"other": 3},
        {"other": "conv.weight"}, ["ab"], "ab", 3, None,
    )},
    **{f"{key} = {value!r}": in_index(key, value)
       for key in ("tensors", "floats", "buffers") for value in (None, 3, {}, "abc", [], [[]], [None], [["a"]])},
    **{f"config {value!r}": in_index("config", value) for value in (None, 3, "text", [1], [["model", 1]])},
    **{f"no {key}": lambda parts, key=key: parts.index.pop(key)
       for key in ("tensors", "floats", "buffers", "tied", "config")},
    "a tensor twice": lambda parts: parts.index["floats"].append(["conv.weight", [0], "float32"]),
    "names of two kinds": lambda parts: parts.index["floats"].extend([[3, [0], "uint8"], ["x", [0], "uint8"]]),
    "a tensor less": lambda parts: parts.index["tensors"].pop(),
    "rows in another order": lambda parts: parts.index["tensors"].reverse(),
    "a short row": lambda parts: parts.index["tensors"][0].pop(),
    "a long row": lambda parts: parts.index["tensors"][0].append(0),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies(good, path, lie):
    refusal(path, changed(good, LIES[lie]))


@pytest.mark.parametrize("value", [None, [], 3, "index", [["tensors", []]], True])
def test_an_index_that_is_no_object(good, path, value):
    def change(parts):
        parts.index = value

    refusal(path, changed(good, change))


def raw_index(data: bytes):
    def change(parts):
        parts.index_bytes = data

    return change


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        zlib.compress(b""),
        zlib.compress(b"{"),
        zlib.compress(b"\xff\xfe"),
        zlib.compress(b"{}"),
        zlib.compress(b"[" * 200_000),
        zlib.compress(b'{"tensors": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        zlib.compress(b'{"tensors": ' + b"9" * 50_000 + b"}"),
        zlib.compress(b'{"tensors": []}')[:-6],
    ],
    ids=lambda data: repr(data[:10]),
)
def test_an_index_that_cannot_be_read(good, path, data):
    refusal(path, changed(good, raw_index(data)))


@pytest.mark.parametrize(("unit", "megabytes"), [(b" ", 128), (b"[],", 128), (b"[],", 48)])
def test_an_index_that_expands_without_end(good, path, unit, megabytes):
    """A small file of much text, all of it JSON: refused before it takes time or memory."""
    squeeze = zlib.compressobj(1)
    block = unit * (2**20 // len(unit))
    bomb = squeeze.compress(b'{"tensors":[') + b"".join(squeeze.compress(block) for _ in range(megabytes))
    data = changed(good, raw_index(bomb + squeeze.compress(b"0]}") + squeeze.flush()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path, data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KB


# ---- payloads that lie ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["levels", "widths", "scales", "floats"])
def test_payloads_that_do_not_add_up(good, path, name):
    def longer(parts):
        parts.entries[name] = np.append(parts.entries[name], parts.entries[name][:1])

    def shorter(parts):
        parts.entries[name] = parts.entries[name][:-1]

    def none(parts):
        parts.entries[name] = parts.entries[name][:0]

    for change in (longer, shorter, none):
        assert name in refusal(path, changed(good, change))


def test_any_first_byte_of_a_table_of_widths(good, path):
    """The narrowest width and the bits of an entry: what the bytes of levels do not bear out is refused."""
    parts = parts_of(good)
    table = parts.entries["widths"] = parts.entries["widths"].copy()
    right, model = table[0], network(seed=1)
    for first in range(256):
        table[0] = first
        said = refused_or_loaded(path, put_together(parts), model)
        assert (said is None) == (first == right), first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scales_that_are_not_finite(good, path, value):
    def change(parts):
        parts.entries["scales"] = np.append(parts.entries["scales"][:-1], np.float32(value))

    assert "scales" in refusal(path, changed(good, change))


@pytest.mark.parametrize(("shape", "group_size"), [([2**39], 1), ([2**39], 0), ([0], 0), ([0], 1)])
def test_one_byte_that_says_the_width_of_groups_without_end(good, path, shape, group_size):
    """A table of equal widths is one byte whatever the number of groups: no length bears the shape out."""

    def change(parts):
        row = parts.index["tensors"][0]
        parts.entries["widths"] = np.append(np.uint8(0x40), parts.entries["widths"][row[WIDTHS] :])
        row[SHAPE], row[GROUP_SIZE], row[WIDTHS] = shape, group_size, 1

    refusal(path, changed(good, change))


def test_a_table_of_widths_on_the_grid_of_one_step(good, path):
    """Groups of several widths are no grid of LSQ."""

    def change(parts):
        parts.index["tensors"][0][GRID] = "step"
        parts.entries["scales"] = parts.entries["scales"][1:]

    refusal(path, changed(good, change))


HOSTILE = [
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**40,
    1e308,
    0.5,
    "x",
    "",
    [],
    [[]],
    {},
    {"a": 1},
    True,
    [2**40],
    "\ud800",
]


def leaves(value, at=()):
    """The place of everything inside nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from leaves(item, (*at, key))


@pytest.mark.parametrize("build", [Net, Mixed, Tied])
@pytest.mark.parametrize("way", ["diffq 3, divides", "uniform 2.5", "lsq 3", "none"])
def test_any_value_anywhere_in_the_index(way, build, path):
    """Refused or loaded, but nothing else: never a crash, never half a model."""
    parts = parts_of(storage.serialize(attached(way, network(build)), {"model": {}}))
    source = random.Random(0)
    places = list(leaves(parts.index))
    refused, model = 0, network(build, seed=1)
    for _ in range(60):
        *outer, last = source.choice(places)
        lie = copy.deepcopy(parts)
        inner = lie.index
        for key in outer:
            inner = inner[key]
        inner[last] = source.choice(HOSTILE)
        refused += refused_or_loaded(path, put_together(lie), model) is not None
    assert refused > 40


# ---- a good file for another network --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["diffq 3, divides", "uniform 4", "lsq 3", "none"])
@pytest.mark.parametrize("with_quantizer", [False, True])
@pytest.mark.parametrize(
    ("build", "name"),
    [
        (Longer, r"'tail\."),
        (NoNorm, r"'norm\."),
        (lambda: Net(width=7), r"'(conv|norm|head)\..*\(7"),
        (lambda: Net(classes=6), r"'head\..*6"),
        (Tied, r"'(embed|mid|out|conv|norm|head)\."),
    ],
    ids=["longer", "no norm", "wider", "more classes", "another"],
)
def test_tensors_that_do_not_fit(way, with_quantizer, build, name, path):
    storage.save(attached(way, network()), path)
    model = network(build, seed=1)
    if with_quantizer:
        attached(way, model)
    text = refusal(path, None, model)
    assert re.search(name, text), text


@pytest.mark.parametrize(
    ("way", "other"), [("diffq 3, divides", "uniform 4"), ("lsq 3", "diffq 1"), ("none", "lsq 3")]
)
def test_another_method_is_refused_by_name(way, other, path):
    storage.save(attached(way, network()), path)
    model = network(seed=1)
    quantizer = attached(other, model)
    text = refusal(path, None, model)
    assert quantizer.method in text and way.split()[0] in text


def test_a_tensor_that_the_quantizer_leaves_float(path):
    storage.save(attached("uniform 4", network()), path)
    model = network(seed=1)
    attached("uniform 15, some floats", model)
    assert "bias" in refusal(path, None, model)


def test_a_refused_file_changes_nothing_of_a_quantizer(good, path):
    model = network(seed=1)
    quantizer = diffq(model, group_size=8, exclude=("*.bias",))
    outputs = model(torch.ones(1, 3, 6, 6))
    bits = copy.deepcopy(quantizer.bits())
    refusal(path, changed(good, in_row(SHAPE, [6, 3, 9])), model)
    assert torch.equal(model(torch.ones(1, 3, 6, 6)), outputs)
    assert_same(quantizer.bits(), bits)
