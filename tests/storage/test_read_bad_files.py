"""Files that are damaged, or of another network: one ValueError that names the file, and the model untouched."""

import copy
import json
import random
import re
import zlib

import numpy as np
import pytest
import torch
from helpers.storage_models import (
    Net,
    Tied,
    assert_same,
    attached,
    changed,
    checksum,
    diffq,
    network,
    parts_of,
    refusal,
    snapshot,
    wide,
)
from safetensors.numpy import save as dump_safetensors
from torch import nn

from diffq_exp import storage


class Longer(Net):
    def __init__(self):
        super().__init__()
        self.tail = nn.Linear(5, 5)


class NoNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)


def test_both_codings_are_tested(good):
    """One file has tensors whose levels and bits are entropy-coded beside one that is not, the other has none."""
    codings = [tuple(row[6:8]) for row in parts_of(good).index["tensors"]]
    ans, packed = ("ans", "ans"), ("packed", "packed")
    assert codings in ([ans, packed, ans], [packed] * 3)


def test_the_helper_makes_good_files(good, path):
    path.write_bytes(changed(good, lambda parts: None))
    model = wide(seed=1)
    storage.load(path, model)
    path.write_bytes(good)
    other = wide(seed=2)
    storage.load(path, other)
    assert_same(snapshot(model), snapshot(other))


# ---- damage ---------------------------------------------------------------------------------------------------


def test_cut_short_anywhere(good, path):
    model = wide(seed=1)
    for length in (*range(0, len(good), 31), len(good) - 1):
        refusal(path, good[:length], model)


def test_longer_than_it_should_be(good, path):
    refusal(path, good + b"\0")
    refusal(path, good + good)


def test_one_bit_flipped(good, path):
    model = wide(seed=1)
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
    assert "checksum" in refusal(path, dump_safetensors(entries, {**parts.plain, "checksum": wrong}))
    assert "checksum" in refusal(path, dump_safetensors(entries, parts.plain))
    right = checksum(entries, parts.plain)
    lied = {**parts.plain, "method": "lsq", "checksum": right}
    assert "checksum" in refusal(path, dump_safetensors(entries, lied))


def test_another_version_of_the_format(good, path):
    text = refusal(path, changed(good, lambda parts: parts.plain.update(format="diffq_exp.model/99")))
    assert "diffq_exp.model/99" in text


@pytest.mark.parametrize("name", ["levels", "bits", "models", "scales", "floats"])
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
    """bfloat16, 8-bit floats and what is no type stand in a header that is right otherwise."""
    for kind in (b"BF16", b"F8_E4M3", b"F9", b"a\nb"):
        length = int.from_bytes(good[:8], "little")
        header = json.loads(good[8 : 8 + length])
        header["levels"]["dtype"] = kind.decode()
        text = json.dumps(header).encode()
        refusal(path, len(text).to_bytes(8, "little") + text + good[8 + length :])


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
    model = wide(seed=1)
    quantizer = diffq(model, group_size=8, exclude=("*.bias",))
    outputs = model(torch.ones(1, 3, 6, 6))
    bits = copy.deepcopy(quantizer.bits())

    def change(parts):
        parts.index["tensors"][0][1] = [64, 3, 9]

    refusal(path, changed(good, change), model)
    assert torch.equal(model(torch.ones(1, 3, 6, 6)), outputs)
    assert_same(quantizer.bits(), bits)
