"""Coding in context: levels come back, in the fewest bytes where they have patterns, and no bytes do harm."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress

import numpy as np
import pytest

from diffq_exp.storage import contexts
from diffq_exp.storage.contexts import CONSTANTS, ONE, SCALE, decode, encode

SHAPES = [(1, 1, 1), (1, 7, 1), (7, 1, 1), (3, 5, 9), (16, 12, 25), (40, 30, 1), (2, 3, 40)]


def bytes_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def levels(shape: tuple[int, int, int], spread: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0, spread, shape)
    return np.rint(drawn).clip(-(2**14), 2**14).astype(np.int16)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0, 0.2, 0.7, 3, 60, 9000])
def test_levels_come_back(shape, spread):
    given = levels(shape, spread)
    assert np.array_equal(decode(bytes_of(encode(given)), shape, 2**14), given)


def test_zeros_take_next_to_nothing():
    assert len(encode(np.zeros((64, 64, 9), np.int16))) <= 16


def test_other_memory_orders_and_types_are_the_same_levels():
    given = levels((6, 8, 9), 0.6)
    turned = np.ascontiguousarray(given.transpose(1, 0, 2)).transpose(1, 0, 2)
    assert encode(given) == encode(turned) == encode(given.astype(np.int64))


def entropy_bytes(given: np.ndarray) -> float:
    counts = np.unique(given, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def test_no_pattern_costs_little_more_than_the_entropy():
    given = levels((128, 64, 9), 0.6)
    assert len(encode(given)) < 1.02 * entropy_bytes(given) + 40


def test_empty_rows_and_columns_are_learned():
    """A quarter of the rows and of the columns are alive: the entropy of one distribution is far above."""
    given = levels((128, 96, 9), 0.8)
    source = np.random.default_rng(1)
    given[source.random(128) > 0.25] = 0
    given[:, source.random(96) > 0.25] = 0
    assert len(encode(given)) < 0.5 * entropy_bytes(given)


def test_the_bytes_are_those_that_every_release_and_machine_writes():
    """A file of yesterday must decode: these bytes stand for the tables, the contexts and the arithmetic."""
    digest = hashlib.sha256()
    for shape in SHAPES:
        for spread in (0.3, 2, 40):
            digest.update(encode(levels(shape, spread, seed=5)))
    assert digest.hexdigest()[:16] == "8a92773ac01683eb"


def test_no_rounded_constant_is_near_a_half():
    """A logarithm that is wrong in its last bits, on another machine, rounds to the same integer."""
    logits = contexts._logits
    shares = contexts._shares
    for exact, kept in (
        (ONE / (1 + np.exp(-logits)), CONSTANTS.squash),
        (SCALE * np.log(shares / (1 - shares)), CONSTANTS.stretch),
    ):
        assert np.abs(exact % 1 - 0.5).min() > 1e-6 and len(exact) == len(kept)


@pytest.mark.parametrize("seed", range(30))
def test_damaged_bytes_are_refused_or_give_other_levels(seed):
    source = np.random.default_rng(seed)
    given = levels((9, 11, 9), 0.7)
    data = bytearray(encode(given))
    data[source.integers(len(data))] ^= 1 << source.integers(8)
    try:
        back = decode(bytes_of(bytes(data)), given.shape, 20)
    except ValueError:
        return
    assert back.shape == given.shape and np.abs(back).max() <= 20 and not np.array_equal(back, given)


@pytest.mark.parametrize("extra", [b"\0", b"\1", b"abcdefgh"])
def test_bytes_after_the_end_are_refused(extra):
    data = encode(levels((9, 11, 9), 0.7))
    with pytest.raises(ValueError, match="end elsewhere"):
        decode(bytes_of(data + 8 * extra), (9, 11, 9), 2**14)


def test_a_level_beyond_the_largest_is_refused():
    given = levels((4, 4, 9), 30)
    with pytest.raises(ValueError, match="beyond 20"):
        decode(bytes_of(encode(given)), given.shape, 20)


def test_random_bytes_end_in_time():
    data = np.random.default_rng(3).integers(0, 256, 20_000, np.uint8)
    decode(bytes_of(encode(np.zeros((1, 1, 1), np.int16))), (1, 1, 1), 1)  # compiled
    start = time.process_time()
    with suppress(ValueError):
        decode(data, (512, 128, 9), 2**14)
    assert time.process_time() - start < 4
