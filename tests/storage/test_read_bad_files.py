"""Files that are damaged, or of another network: one ValueError that names the file, and the model untouched."""

import copy
import json
import random
import re

import numpy as np
import pytest
import torch
from helpers.storage_models import (
    Net,
    Tied,
    assert_same,
    attached,
    diffq,
    network,
    refusal,
    snapshot,
    wide,
)
from helpers.stored_files import NEW, PAYLOADS, Parts, changed, checksum, deflated, file_of, parts_of, put_together
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


def test_the_helper_makes_good_files(good, old, path):
    states = []
    for seed, data in enumerate((good, changed(good, lambda parts: None), old, changed(old, lambda parts: None))):
        path.write_bytes(data)
        model = wide(seed=1 + seed)
        storage.load(path, model)
        states.append(snapshot(model))
    for state in states[1:]:
        assert_same(state, states[0])


# ---- damage ---------------------------------------------------------------------------------------------------


def test_cut_short_anywhere(good, old, path):
    model = wide(seed=1)
    for data, step in ((good, 31), (old, 97)):
        for length in (*range(0, len(data), step), len(data) - 1):
            refusal(path, data[:length], model)


def test_longer_than_it_should_be(good, old, path):
    for data in (good, old):
        refusal(path, data + b"\0")
        refusal(path, data + data)


def test_one_bit_flipped(coded, old, path):
    """Each bit of the header and of the lengths, and some of the rest."""
    model, source = wide(seed=1), random.Random(0)
    for good in (coded, old):
        header = 8 + int.from_bytes(good[:8], "little")
        places = source.sample(range(8 * len(good)), 100)
        places += range(8 * (header + 20)) if good is coded else source.sample(range(8 * header), 80)
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


def test_the_checksum_is_of_everything(coded, path):
    """A file put together anew, with the old checksum."""
    place = 8 + int.from_bytes(coded[:8], "little")
    data = changed(coded, lambda parts: parts.index["config"].update(batch_size=5))
    lied = data[:place] + coded[place : place + 8] + data[place + 8 :]
    assert "checksum" in refusal(path, lied)


def test_the_checksum_of_format_2_is_of_everything(old, path):
    parts = parts_of(old)
    entries = {"index": np.zeros(0, np.uint8), **parts.entries}
    right = checksum(entries, parts.plain)
    for lied in ({"checksum": right[:-1]}, {}, {"method": "lsq", "checksum": right}):
        assert "checksum" in refusal(path, dump_safetensors(entries, {**parts.plain, **lied}))


def test_another_version_of_the_format(coded, old, path):
    for data in (coded, old):
        text = refusal(path, changed(data, lambda parts: parts.plain.update(format="diffq_exp.model/99")))
        assert "diffq_exp.model/99" in text
    refusal(path, coded.replace(b"diffq_exp.model/3", b"diffq_exp.model/2", 1))
    refusal(path, old.replace(b"diffq_exp.model/2", b"diffq_exp.model/3", 1))


@pytest.mark.parametrize("name", PAYLOADS)
def test_an_entry_of_format_2_is_missing_or_of_another_kind(old, path, name):
    refusal(path, changed(old, lambda parts: parts.entries.pop(name)))
    for kind in (np.float64, np.int64, np.int8, np.float16):
        refusal(path, changed(old, lambda parts, kind=kind: _retype(parts, name, kind)))
    for shape in ((-1, 1), (1, -1)):
        refusal(path, changed(old, lambda parts, shape=shape: _reshape(parts, name, shape)))


def _retype(parts, name, kind):
    parts.entries[name] = parts.entries[name].astype(kind)


def _reshape(parts, name, shape):
    parts.entries[name] = parts.entries[name].reshape(shape)


def test_the_entry_is_missing_or_of_another_kind(coded, path):
    """bfloat16, 8-bit floats and what is no type stand in a header that is right otherwise."""
    length = int.from_bytes(coded[:8], "little")
    data = np.frombuffer(coded[8 + length :], np.uint8)
    for entries in ({}, {"date": data}, {"data": data, "more": data[:0]}, {"data": data.view(np.int8)},
                    {"data": data[None]}, {"data": data[:8].view(np.float32)}, {"a\nb": data}):  # fmt: skip
        refusal(path, dump_safetensors(entries, {"format": NEW}))
    for kind in ("BF16", "F8_E4M3", "F9", "a\nb"):
        header = json.loads(coded[8 : 8 + length])
        header["data"]["dtype"] = kind
        text = json.dumps(header).encode()
        refusal(path, len(text).to_bytes(8, "little") + text + coded[8 + length :])


# ---- lengths of format 3 --------------------------------------------------------------------------------------


def _lengths(parts: Parts) -> list[int]:
    return list(map(len, [parts.index_bytes, *(parts.entries[name].tobytes() for name in PAYLOADS)]))


def test_lengths_that_do_not_add_up(coded, path):
    """Any of the six: of the payload after it, of the rest, and far beyond the file."""
    model = wide(seed=1)
    for place in range(6):
        for more in (-1, 1, 10**6, 2**62):

            def change(parts, place=place, more=more):
                parts.index_bytes = deflated(json.dumps(parts.index).encode())
                parts.lengths = _lengths(parts)
                parts.lengths[place] = max(parts.lengths[place] + more, 0)

            refusal(path, changed(coded, change), model)


def test_lengths_that_cannot_be_read(coded, path):
    model = wide(seed=1)
    for lengths in (b"", b"\x05", b"\x05" * 5, b"\xff" * 9 + b"\0" * 6, b"\x80" * 60, b"\xff" * 5):
        refusal(path, file_of(lengths), model)
        refusal(path, changed(coded, lambda parts, lengths=lengths: setattr(parts, "lengths", lengths)), model)
    for content in (b"", b"\0" * 6, b"\0" * 100):
        refusal(path, file_of(content), model)
    refusal(path, dump_safetensors({"data": np.zeros(5, np.uint8)}, {"format": NEW}), model)


def test_bytes_after_the_payloads_are_zeros(coded, path):
    parts, model = parts_of(coded), wide(seed=1)
    for after in (b"\1", b"\0\0\1", b"\1\0"):
        parts.after = after
        assert "not zero" in refusal(path, put_together(parts), model)
    parts.after = bytes(9)
    path.write_bytes(put_together(parts))
    storage.load(path, model)
    assert storage.open_stored(path).padding == 9


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


def test_a_tensor_that_only_the_quantizer_quantizes(path):
    storage.save(attached("uniform 15, some floats", network()), path)
    model = network(seed=1)
    attached("uniform 4", model)
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
