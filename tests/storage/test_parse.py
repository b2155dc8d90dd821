"""Files whose index lies, under a right checksum: a ValueError in one line, soon, and the model untouched."""

import copy
import json
import random
import resource
import zlib

import pytest
from helpers.storage_models import (
    Mixed,
    Net,
    Tied,
    attached,
    good_file,
    network,
    refusal,
    refused_or_loaded,
    wide,
)
from helpers.stored_files import changed, deflated, parts_of, put_together

from diffq_exp import storage
from diffq_exp.storage.dictionary import DICTIONARY

NAME, SHAPE, DTYPE, GRID, GROUP_SIZE, TOP, LEVELS_CODING, BITS_CODING, LEVELS, BITS, MODELS = range(11)


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


def other_coding(*places: int):
    def change(parts):
        for place in places:
            parts.index["tensors"][0][place] = {"ans": "packed", "packed": "ans"}[parts.index["tensors"][0][place]]

    return change


def moved(one: int, other: int):
    """The payloads' lengths are right in all, but not those of a tensor."""

    def change(parts):
        parts.index["tensors"][0][one] -= 1
        parts.index["tensors"][0][other] += 1

    return change


LENGTHS = {LEVELS: "levels", BITS: "bits", MODELS: "models"}
HUGE_SHAPES = [[2**39, 2**39, 2**39], [2**62], [10**30], [2**20, 2**20], [1] * 1000 + [2**40]]
BAD_SHAPES = [[-1], [-64, -3, 3, 3], [64, 3, 3, 3.0], [54.5], ["64"], [None], [[64]], 1728, "1728", None, {"64": 1}]
BAD_SHAPES += [True, [0], [0, 2**39, 2**39, 2**39], [64, 3, 3], [], [64, 27, 2], [1727], [64, 27]]

LIES = {
    **{f"shape {str(shape)[:30]}": in_row(SHAPE, shape) for shape in HUGE_SHAPES + BAD_SHAPES},
    **{f"float shape {str(shape)[:30]}": in_float(1, shape) for shape in HUGE_SHAPES + BAD_SHAPES},
    **{f"type {value}": in_row(DTYPE, value) for value in ("float8", "nn", None, 3, ["float32"])},
    **{f"float type {value}": in_float(2, value) for value in ("complex64", "float64", "int8", None, ["float32"])},
    **{f"grid {value}": in_row(GRID, value) for value in ("cubic", "", None, 0, ["minmax"])},
    **{f"group size {value}": in_row(GROUP_SIZE, value) for value in (-1, 7, 9, 0, 2**62, 10**30, 8.0, "8", None)},
    **{f"top {value}": in_row(TOP, value) for value in (0, -1, 3, 2**15, 10**30, 3.5, "3", [3])},
    **{f"two lines for {place}": in_row(place, "a\nb")
       for place in (NAME, SHAPE, DTYPE, GRID, GROUP_SIZE, TOP, LEVELS_CODING, LEVELS)},
    **{f"two lines for {place} of a float": in_float(place, "a\nb") for place in range(3)},
    **{f"levels {value}": in_row(LEVELS, value) for value in (0, -1, 10, 10**9, 2**80, 1.0, "9", None)},
    **{f"bits {value}": in_row(BITS, value) for value in (0, -1, 1, 10**9, 2**80, 1.0, "9", None)},
    **{f"models {value}": in_row(MODELS, value) for value in (1, -1, 10**9, 2**80, 1.0, "9", None)},
    **{f"coding of {what} {value}": in_row(place, value)
       for what, place in (("levels", LEVELS_CODING), ("bits", BITS_CODING))
       for value in ("zip", "", None, 3, ["packed"], {"ans": 1})},
    "the other coding of levels": other_coding(LEVELS_CODING),
    "the other coding of bits": other_coding(BITS_CODING),
    "the other coding of both": other_coding(LEVELS_CODING, BITS_CODING),
    **{f"{LENGTHS[one]} give {LENGTHS[other]} a byte": moved(one, other)
       for one in LENGTHS for other in LENGTHS if one != other},
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
    **{f"method {value!r}": in_index("method", value) for value in (None, 3, ["diffq"], {}, True)},
    **{f"no {key}": lambda parts, key=key: parts.index.pop(key)
       for key in ("tensors", "floats", "buffers", "tied", "config", "method")},
    "a tensor twice": lambda parts: parts.index["floats"].append(["conv.weight", [0], "float32"]),
    "names of two kinds": lambda parts: parts.index["floats"].extend([[3, [0], "uint8"], ["x", [0], "uint8"]]),
    "a tensor less": lambda parts: parts.index["tensors"].pop(),
    "rows in another order": lambda parts: parts.index["tensors"].reverse(),
    "a short row": lambda parts: parts.index["tensors"][0].pop(),
    "a long row": lambda parts: parts.index["tensors"][0].append(0),
    "a short row of a float": lambda parts: parts.index["floats"][0].pop(),
    "a long row of a float": lambda parts: parts.index["floats"][0].extend([0.5, 0.5]),
    "a long row of a buffer": lambda parts: parts.index["buffers"][2].append(17),
    "a buffer without its value": lambda parts: parts.index["buffers"][2].pop(),
    "a value of null": lambda parts: parts.index["floats"][0].append(None),
}  # fmt: skip
OF_A_CODING = ("shape", "group size", "top", "levels", "bits", "models", "coding", "the other")


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies(coded, path, lie):
    refusal(path, changed(coded, LIES[lie]))


def test_an_index_that_lies_about_packed_tensors(path):
    data, model = good_file("packed"), wide(seed=1)
    for lie, change in LIES.items():
        if lie.startswith(OF_A_CODING):
            refusal(path, changed(data, change), model)


def test_an_index_of_format_2_that_lies(old, path):
    model = wide(seed=1)
    for lie in list(LIES)[::5]:
        if not lie.startswith("method"):
            refusal(path, changed(old, LIES[lie]), model)


@pytest.mark.parametrize("value", [None, [], 3, "index", [["tensors", []]], True])
def test_an_index_that_is_no_object(coded, old, path, value):
    def change(parts):
        parts.index = value

    for data in (coded, old):
        refusal(path, changed(data, change))


def raw_index(data: bytes):
    def change(parts):
        parts.index_bytes = data

    return change


UNREADABLE = [
    b"", b"{", b"\xff\xfe", b"{}", b"[" * 200_000, b'{"tensors": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"tensors": ' + b"9" * 50_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("text", UNREADABLE, ids=lambda text: repr(text[:10]))
def test_an_index_that_cannot_be_read(coded, old, path, text):
    for data, squeeze in ((coded, deflated), (old, zlib.compress)):
        refusal(path, changed(data, raw_index(squeeze(text))))


def test_an_index_that_is_not_deflated(coded, old, path):
    for data, squeeze in ((coded, deflated), (old, zlib.compress)):
        whole = squeeze(json.dumps(parts_of(data).index).encode())
        other = zlib.compress if squeeze is deflated else deflated
        for wrong in (b"", b"{}", whole[:-1], whole[:-6], whole[: len(whole) // 2], whole + b"1", other(b"{}")):
            refusal(path, changed(data, raw_index(wrong)))


def test_an_index_with_another_dictionary(coded, path):
    def change(parts):
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY[:-1])
        parts.index_bytes = squeeze.compress(json.dumps(parts.index).encode()) + squeeze.flush()

    refusal(path, changed(coded, change))


@pytest.mark.parametrize(("unit", "megabytes"), [(b" ", 128), (b"[],", 128), (b"[],", 48)])
def test_an_index_that_expands_without_end(coded, path, unit, megabytes):
    """A small file of much text, all of it JSON: refused before it takes time or memory."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -15)
    block = unit * (2**20 // len(unit))
    bomb = squeeze.compress(b'{"tensors":[') + b"".join(squeeze.compress(block) for _ in range(megabytes))
    data = changed(coded, raw_index(bomb + squeeze.compress(b"0]}") + squeeze.flush()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path, data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KB


HOSTILE = [
    None, -1, 0, 1, 2**31, 2**63, 10**40, 1e308, 0.5, "x", "", [], [[]], {}, {"a": 1}, True, [2**40], "\ud800",
]  # fmt: skip


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
