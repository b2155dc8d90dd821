"""The header of a file is one that safetensors reads; lengths, checksum and dictionary are what they were."""

import json
from hashlib import blake2b

import numpy as np
import pytest
from safetensors.numpy import load

from diffq_exp.storage.dictionary import DICTIONARY
from diffq_exp.storage.layout import (
    NAMES,
    checksum,
    fewest_bytes,
    header,
    most_entries,
    number_bytes,
    read_number,
    values_in,
    version_of,
)


@pytest.mark.parametrize("length", [0, 1, 99_999])
def test_safetensors_reads_what_follows_a_header(length):
    data, head = np.arange(length).astype(np.uint8), header({"data": ("U8", [length], length)}, {"format": "a"})
    assert len(head) % 8 == 0
    read = load(head + data.tobytes())
    assert list(read) == ["data"] and read["data"].tobytes() == data.tobytes()


def test_the_checksum_does_not_depend_on_how_its_parts_are_cut():
    one, two = np.arange(5, dtype=np.uint8), np.arange(5, 9, dtype=np.uint8)
    whole = checksum([np.concatenate([one, two])])
    assert whole == checksum([one, two]) == blake2b(bytes(range(9)), digest_size=8).digest()
    assert whole != checksum([two, one])


def test_the_dictionary_is_frozen():
    """Files that were written with another one could not be read."""
    assert blake2b(DICTIONARY, digest_size=16).hexdigest() == "c159a078819af5a590fa63bed82d212c"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**14 - 1, 2**14, 2**35, 2**63 - 1])
def test_numbers_of_seven_bits_to_a_byte(number):
    data = number_bytes(number)
    assert len(data) == max(-(-number.bit_length() // 7), 1)
    array = np.frombuffer(b"x" + data + b"\xff", np.uint8)
    assert read_number(array, 1) == (number, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 8, b"\xff" * 9 + b"\0", b"\xff" * 10**5])
def test_numbers_that_do_not_end(data):
    """At most nine bytes are read."""
    with pytest.raises(ValueError, match="lengths"):
        read_number(np.frombuffer(data, np.uint8), 0)


@pytest.mark.parametrize("entries", [0, 2**20, 2**20 + 1, 10**8])
def test_a_file_of_the_fewest_bytes_may_hold_its_entries(entries):
    least = fewest_bytes(entries, 0, b"{}", 0)
    assert most_entries(least) >= entries
    assert least == 0 or most_entries(least - 1) < entries


@pytest.mark.parametrize("tied", [2**24, 2**24 + 1, 10**9])
def test_tied_entries_may_be_sixteen_times_as_many(tied):
    least = fewest_bytes(0, tied, b"{}", 0)
    assert NAMES * most_entries(least) >= tied
    assert least == 0 or NAMES * most_entries(least - 1) < tied


def test_values_are_counted_from_above():
    text = json.dumps({"a": [1, 2, {"b": "x,y"}], "c": None}).encode()
    assert values_in(text) >= 5


@pytest.mark.parametrize(("given", "message"), [
    ("diffq_exp.model/1", "store the network again"), ("diffq_exp.model/4", "a newer diffq_exp"),
    (None, "not a stored model"), ("diffq_exp.model/x", "not a stored model"), ("diffq_exp.model/", "not a stored"),
    ("diffq_exp.model/3\n", "not a stored model"), ("diffq_exp.model/" + "9" * 99, "not a stored model"),
])  # fmt: skip
def test_another_format_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        version_of(given)


def test_formats_that_are_read():
    assert [version_of(f"diffq_exp.model/{version}") for version in (2, 3)] == [2, 3]
