"""The header of a file is one that safetensors reads, and its checksum sees every byte."""

import json

import numpy as np
import pytest
from safetensors.numpy import load

from diffq_exp.storage.layout import KINDS, check_format, checksum, fewest_bytes, header, most_entries, values_in


def test_safetensors_reads_what_follows_a_header():
    payloads = {name: np.arange(8 * place, 16 * place, dtype=np.uint8) for place, name in enumerate(KINDS)}
    head = header({name: len(data) for name, data in payloads.items()}, {"format": "x"})
    assert len(head) % 8 == 0
    read = load(head + b"".join(data.tobytes() for data in payloads.values()))
    assert {name: value.tobytes() for name, value in read.items()} == {
        name: data.tobytes() for name, data in payloads.items()
    }


def test_the_checksum_depends_on_every_part_and_not_on_how_it_is_cut():
    one, two = np.arange(5, dtype=np.uint8), np.arange(5, 9, dtype=np.uint8)
    whole = checksum({"levels": [np.concatenate([one, two])], "bits": []}, {"format": "f"})
    assert whole == checksum({"bits": [], "levels": [one, two]}, {"format": "f"})
    others = [({"levels": [two, one], "bits": []}, "f"), ({"levels": [one], "bits": [two]}, "f"),
              ({"levels": [one, two], "bits": []}, "g")]  # fmt: skip
    assert len({whole, *(checksum(payloads, {"format": form}) for payloads, form in others)}) == 4


@pytest.mark.parametrize("entries", [0, 2**20, 2**20 + 1, 10**8])
def test_a_file_of_the_fewest_bytes_may_hold_its_entries(entries):
    least = fewest_bytes(entries, b"{}", 0)
    assert most_entries(least) >= entries
    assert least == 0 or most_entries(least - 1) < entries


def test_values_are_counted_from_above():
    text = json.dumps({"a": [1, 2, {"b": "x,y"}], "c": None}).encode()
    assert values_in(text) >= 5


@pytest.mark.parametrize(("given", "message"), [
    ("diffq_exp.model/1", "store the network again"), ("diffq_exp.model/4", "a newer diffq_exp"),
    (None, "not a stored model"), ("diffq_exp.model/x", "not a stored model"),
])  # fmt: skip
def test_another_format_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        check_format(given)
