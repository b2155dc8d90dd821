"""Entropy coding: round trips, sizes near the entropy, and refusals of what is no such code."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq_exp.storage.entropy import KNOTS, MOST_IN_TABLE, bits_of, decode, encode, model_of
from diffq_exp.stored.packing import CHUNK

often = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
alphabets = st.one_of(st.integers(2, 40), st.sampled_from([2, 3, 64, 65, 255, 256, 257, 1000, 4097, 2**15]))


def drawn(kind: str, count: int, symbols: int, seed: int) -> np.ndarray:
    """`count` symbols of an alphabet, int16."""
    source = np.random.default_rng(seed)
    if kind == "flat":
        numbers = source.integers(0, symbols, count)
    elif kind == "constant":
        numbers = np.full(count, source.integers(0, symbols))
    elif kind == "skewed":
        numbers = np.minimum(source.geometric(0.5, count) - 1, symbols - 1)
    elif kind == "two ends":
        numbers = source.choice([0, symbols - 1], count, p=[0.99, 0.01])
    elif kind == "one never":
        numbers = source.integers(0, symbols - 1, count)
        numbers[numbers >= symbols // 2] += 1
    else:
        numbers = np.clip(np.rint(source.normal(symbols / 2, symbols / 7, count)), 0, symbols - 1)
    return numbers.astype(np.int16)


KINDS = ["flat", "constant", "skewed", "two ends", "one never", "bell"]


def decoded(models: bytes, words: bytes, runs) -> list[np.ndarray]:
    return decode(np.frombuffer(models, np.uint8), np.frombuffer(words, np.uint8), runs)


def assert_round_trip(runs: list[tuple[np.ndarray, int]]) -> int:
    """-> the bytes of it."""
    models, words = encode(runs)
    back = decoded(models, words, [(len(numbers), symbols) for numbers, symbols in runs])
    assert len(back) == len(runs)
    for one, (numbers, symbols) in zip(back, runs, strict=True):
        assert one.dtype == (np.uint8 if symbols <= 256 else np.int16) and np.array_equal(one, numbers)
    return len(models) + len(words)


def entropy_of(numbers: np.ndarray) -> float:
    """Bytes that an ideal coder takes which is told the counts."""
    counts = np.unique(numbers, return_counts=True)[1]
    return float((counts * np.log2(len(numbers) / counts)).sum()) / 8


# ---- round trips ----------------------------------------------------------------------------------------------

runs = st.tuples(st.sampled_from(KINDS), st.sampled_from([0, 1, 2, 9, 300]), alphabets, seeds)


@settings(often, max_examples=40)
@given(st.lists(runs, max_size=3))
def test_round_trip(described):
    assert_round_trip([(drawn(*run), run[2]) for run in described])


@often
@given(st.lists(st.integers(0, 200), min_size=2, max_size=300), seeds)
def test_any_counts(counts, seed):
    numbers = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    np.random.default_rng(seed).shuffle(numbers)
    assert_round_trip([(numbers, len(counts))])


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_runs_longer_than_a_piece(count):
    assert_round_trip([(drawn("bell", count, 16, 0), 16), (drawn("skewed", count, 5, 1), 5)])


def test_nothing_takes_no_words():
    assert encode([]) == (b"", b"")
    models, words = encode([(np.empty(0, np.int16), 4), (np.empty(0, np.uint8), 2**15)])
    assert (models, words) == (b"\0\0", b"")


def test_the_same_numbers_give_the_same_bytes():
    assert len({encode([(drawn("bell", 5000, 64, 3), 64), (drawn("flat", 100, 9, 3), 9)]) for _ in range(5)}) == 1


# ---- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbols", [2, 3, 4, 7, 8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_many_entries_of_a_narrow_alphabet_take_their_entropy(kind, symbols):
    """And what the least probable that a knot can say, 2^(-255/16), takes from symbols that never occur."""
    numbers = drawn(kind, 200_000, symbols, 0)
    unseen = len(numbers) * (symbols - 1) * 2 ** (-255 / 16) * math.log2(math.e) / 8
    assert assert_round_trip([(numbers, symbols)]) <= 1.01 * entropy_of(numbers) + unseen + symbols + 1 + 16


@pytest.mark.parametrize(("symbols", "count"), [(512, 100_000), (4096, 300_000), (2**15, 1_000_000)])
def test_many_entries_of_a_wide_bell(symbols, count):
    """Of a wide alphabet the law that drew the symbols is the measure: its entropy, not that of the counts."""
    numbers = drawn("bell", count, symbols, 0)
    ideal = count * math.log2(symbols / 7 * math.sqrt(2 * math.pi * math.e)) / 8
    assert assert_round_trip([(numbers, symbols)]) <= 1.01 * ideal + 66 + 16


@often
@given(st.sampled_from(KINDS), st.integers(0, 3000), alphabets, seeds)
def test_a_model_never_costs_more_than_none(kind, count, symbols, seed):
    """The model's bytes and the bits under it, against a symbol as probable as any."""
    counts = np.bincount(drawn(kind, count, symbols, seed), minlength=symbols)
    knots = model_of(counts)
    assert len(knots) in (*KNOTS, symbols) and (len(knots) < symbols or symbols <= MOST_IN_TABLE)
    assert bits_of(counts, knots) / 8 + len(knots) <= count * math.log2(symbols) / 8 + 1e-6


def test_bits_of_is_what_the_words_take():
    numbers = drawn("bell", 100_000, 100, 0)
    counts = np.bincount(numbers, minlength=100)
    models, words = encode([(numbers, 100)])
    assert abs(len(words) - bits_of(counts, model_of(counts)) / 8) < 16 and len(models) < 102


# ---- refusals -------------------------------------------------------------------------------------------------

GOOD = [(drawn("bell", 999, 16, 0), 16), (drawn("skewed", 300, 300, 0), 300)]
SHAPES = [(999, 16), (300, 300)]


def refused(models: bytes, words: bytes, shapes=SHAPES) -> None:
    started = time.process_time()
    with pytest.raises(ValueError):
        decoded(models, words, shapes)
    assert time.process_time() - started < 1


def test_words_cut_short_or_longer():
    """No words at all are the code of zeros only."""
    models, words = encode(GOOD)
    for length in range(1, len(words)):
        refused(models, words[:length])
    assert not any(numbers.any() for numbers in decoded(models, b"", SHAPES))
    for more in (b"\0", b"\1", b"\0" * 4, b"\1\0\0\0", b"\xff" * 4, b"\xff" * 400, words):
        refused(models, words + more)
        refused(models, more + words)


def test_models_cut_short_or_longer():
    models, words = encode(GOOD)
    for length in range(len(models)):
        refused(models[:length], words)
    for more in (b"\0", b"\xff", models):
        refused(models + more, words)


@pytest.mark.parametrize(("models", "symbols"), [
    (b"", 4), (b"\x09", 4), (b"\xff", 4), (b"\x08" + b"\0" * 3, 4), (b"\x08" + b"\0" * 257, 257), (b"\x01\0", 4),
    (b"\x03" + b"\0" * 5, 4), (b"\x07" + b"\0" * 64, 300), (b"\x07" + b"\0" * 65, 64), (b"\0\0", 4),
])  # fmt: skip
def test_models_of_no_kind(models, symbols):
    refused(models, b"", [(0, symbols)])


def test_other_counts_and_alphabets():
    models, words = encode(GOOD)
    for shapes in ([(1000, 16), (300, 300)], [(998, 16), (300, 300)], [(999, 17), (300, 300)], [(999, 16)],
                   [(300, 300), (999, 16)], [(999, 16), (300, 300), (1, 2)], []):  # fmt: skip
        refused(models, words, shapes)


@often
@given(
    st.binary(max_size=40), st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 99), alphabets), max_size=3)
)
def test_any_bytes(models, words, shapes):
    """Refused by a ValueError, or symbols of their alphabets."""
    try:
        back = decoded(models, words, shapes)
    except ValueError:
        return
    for numbers, (count, symbols) in zip(back, shapes, strict=True):
        assert len(numbers) == count and (count == 0 or 0 <= numbers.min() <= numbers.max() < symbols)


def test_words_of_one_kind_of_word():
    for word in (b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"):
        for number in (1, 2, 100):
            refused(b"\0", word * number, [(3, 3)])
            refused(b"\0", word * number, [(0, 2)])
