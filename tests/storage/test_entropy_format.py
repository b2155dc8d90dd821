"""What every machine and every release has to decode alike: the frequencies of a model, the words of a code.

Were one of these to change, files of today could not be read: that wants another version of the format.
"""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from diffq_exp.storage.entropy import FINE, PER_OCTAVE, _octave, decode, encode, frequencies


def exact_octave() -> list[Decimal]:
    """2^36 times 2^(-i/256) to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return [Decimal(2) ** 36 * Decimal(2) ** (Decimal(-i) / FINE) for i in range(FINE)]


def test_the_table_is_the_exact_one_rounded():
    """And far from halves: a float64 of 36 bits before the point has an error of some 2^-16 after it."""
    for given, exact in zip(_octave().tolist(), exact_octave(), strict=True):
        assert abs(given - exact) < Decimal("0.5") - 20 * Decimal(2) ** -16


def reference(knots: list[int], symbols: int) -> list[int]:
    """`frequencies` by Python's integers, symbol by symbol."""
    octave = [int(exact + Decimal("0.5")) for exact in exact_octave()]
    cells, last = len(knots) - 1, symbols - 1
    table = []
    for symbol in range(symbols):
        cell = min(symbol * cells // last, cells - 1)
        right = symbol * cells - cell * last
        below = knots[cell] * (last - right) + knots[cell + 1] * right
        fine = (below * (FINE // PER_OCTAVE) + last // 2) // last
        table.append(max(octave[fine % FINE] >> fine // FINE, 1))
    return table


@pytest.mark.parametrize("symbols", [2, 3, 9, 64, 65, 257, 1000, 2**15])
@pytest.mark.parametrize("number", [2, 3, 5, 9, 17, 33, 65])
def test_frequencies_are_integer_arithmetic(symbols, number):
    if number <= symbols:
        for knots in (np.random.default_rng(0).integers(0, 256, number), np.full(number, 255), np.arange(number)):
            table = frequencies(knots.astype(np.uint8), symbols)
            assert table.dtype == np.int64 and table.tolist() == reference(knots.tolist(), symbols)
            assert table.sum() < 2**53  # floats hold it and what is added up on the way


@pytest.mark.parametrize(("knots", "expected"), [
    ([0, 16], [68719476736, 57785961645, 48592008000, 40860845337, 34359738368]),
    ([3, 1, 4, 1, 5], [60344364739, 65805996370, 57785961645, 65805996370, 55336026450]),
    ([200, 0, 255], [11863283, 213249741, 3822928972, 68719476736, 1729250826, 43514714, 1095000]),
    ([0, 255], [68719476736, 1095000]),
    ([], [1, 1, 1]),
])  # fmt: skip
def test_known_frequencies(knots, expected):
    assert frequencies(np.array(knots, np.uint8), len(expected)).tolist() == expected


CYCLE = np.array([0, 1, 2, 3] * 8)
PEAK = np.array([7, 7, 8, 7, 6, 7, 9, 7, 8, 7, 7, 5, 8, 6, 7, 10] * 8)
RARE = np.array([0, 1, 0, 0, 0, 0, 0, 0] * 9)

# What a code is of, (symbols, their alphabet) for each run; its models; its words.
KNOWN = {
    "uniform": ([(CYCLE, 4)], "00", "0000c0e4e4e4243939393900"),
    "a curve, then a table": (
        [(PEAK, 16), (RARE, 2)], "02b600f108002d",
        "e41d6ba9b48d4e415441bb701af96b0aea16f165ed5e9cd7180874d223f1b8417231280159c9509630572903",
    ),
    "nine knots": (
        [(np.arange(80) * 37 % 300, 300)], "045a1c02001960ffd5f9",
        "a1ba479e031000b312fdffb729175375ee5b000124fdffd174f85c05efc700703efdffdab944687a4250010255fdff0b0d10d7db"
        "cffb01c074fdff460ae3fdd0defe026197fffff0e49bfe19ad0f04b4baffff5399fcffc0db8d324dd7ffff0e00feffa07705a280"
        "d85508af38feff8d5f89f2652a0b0b448c04001001000000",
    ),
    "the widest alphabet": (
        [(np.arange(20) * 5077 % 2**15, 2**15)], "00",
        "004aa2fae4f75250bda303a615a48c275a503d7db2fdedd38aa99e29e3554f7fbb0000d5933d1e00",
    ),
    "zeros are free": ([(np.zeros(999, int), 5)], "00", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_known_codes_are_decoded(name):
    runs, models, words = KNOWN[name]
    data = (np.frombuffer(bytes.fromhex(text), np.uint8) for text in (models, words))
    for numbers, (expected, _) in zip(
        decode(*data, [(len(numbers), symbols) for numbers, symbols in runs]), runs, strict=True
    ):
        assert numbers.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["uniform", "a curve, then a table"])
def test_known_codes_are_encoded(name):
    """Where no fit is in doubt."""
    runs, models, words = KNOWN[name]
    given = encode([(numbers.astype(np.int16), symbols) for numbers, symbols in runs])
    assert [part.hex() for part in given] == [models, words]
