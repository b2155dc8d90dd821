"""Files whose payloads lie, under a right checksum: a ValueError in one line, soon, and the model untouched."""

import numpy as np
import pytest
import torch
from helpers.storage_models import refusal, refused_or_loaded, wide
from helpers.stored_files import as_version2, changed, parts_of, put_together
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import UniformQuantizer
from diffq_exp.storage import entropy

_, SHAPE, _, GRID, GROUP_SIZE, TOP, LEVELS_CODING, BITS_CODING, LEVELS, BITS, MODELS = range(11)  # of a row


def cases(data: np.ndarray) -> list[np.ndarray]:
    """A payload of another length."""
    if len(data) == 0:  # a bit-packed file has no models
        return [np.ones(1, np.uint8), np.ones(99, np.uint8)]
    return [np.append(data, data[:1]), data[:-1], data[:0]]


@pytest.mark.parametrize("name", ["levels", "bits", "models", "scales", "floats"])
def test_payloads_that_do_not_add_up(good, old, path, name):
    for data in (good, old):
        for case in cases(parts_of(data).entries[name]):
            lied = changed(data, lambda parts, case=case: parts.entries.update({name: case}))
            assert name in refusal(path, lied)


def test_any_one_byte_of_the_models(good, path):
    """Nearly all give levels that do not end where they should; the knots of a run of few entries may be others."""
    parts, model = parts_of(good), wide(seed=1)
    said = []
    models = parts.entries["models"] = parts.entries["models"].copy()
    for place in range(len(models)):
        right = models[place]
        for wrong in {0, 1, 7, 8, 9, 255, int(right) ^ 1} - {int(right)}:
            models[place] = wrong
            said.append(refused_or_loaded(path, put_together(parts), model))
        models[place] = right
    refused = [text for text in said if text is not None]
    assert all("tensor '" in text for text in refused) and len(refused) >= 0.75 * len(said)


@pytest.mark.parametrize("name", ["levels", "bits"])
def test_words_of_another_tensor(good, path, name):
    """The coded bytes of the first and the last tensor change places, each with its length."""
    parts = parts_of(good)
    first, _, last = parts.index["tensors"]
    place = {"levels": LEVELS, "bits": BITS}[name]
    data = parts.entries[name]
    one, other = data[: first[place]], data[len(data) - last[place] :]
    between = data[first[place] : len(data) - last[place]]
    parts.entries[name] = np.concatenate([other, between, one])
    first[place], last[place] = last[place], first[place]
    refusal(path, put_together(parts))


def test_any_first_byte_of_a_table_of_widths(good, path):
    """The narrowest width and the bits of an entry: what the bytes of levels do not bear out is refused."""
    parts = parts_of(good)
    table = parts.entries["bits"] = parts.entries["bits"].copy()
    right, model = table[0], wide(seed=1)
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
        parts.entries["bits"] = np.append(np.uint8(0x40), parts.entries["bits"][row[BITS] :])
        row[SHAPE], row[GROUP_SIZE], row[BITS], row[BITS_CODING] = shape, group_size, 1, "packed"

    refusal(path, changed(good, change))
    with pytest.raises(ValueError, match=r"conv\.weight|plausible"):
        storage.read(path)


def test_a_table_of_widths_on_the_grid_of_one_step(good, path):
    """Groups of several widths are no grid of LSQ."""

    def change(parts):
        parts.index["tensors"][0][GRID] = "step"
        parts.entries["scales"] = parts.entries["scales"][1:]

    refusal(path, changed(good, change))


@pytest.mark.parametrize("top", [8, 2**15 - 1])
def test_a_highest_level_that_the_widths_do_not_hold(path, top):
    """Entropy-coded levels are read with an alphabet of top + 1, whatever the bits say."""
    quantizer = UniformQuantizer(wide(), bits=2.9, min_size=0)
    parts = parts_of(storage.serialize(quantizer))
    row = parts.index["tensors"][0]
    assert row[LEVELS_CODING] == "ans" and row[TOP] == 6
    levels = np.arange(64 * 27) % (top + 1)
    model, words = entropy.encode([(levels.astype(np.int16), top + 1)])
    for name, data, place in (("levels", words, LEVELS), ("models", model, MODELS)):
        rest = parts.entries[name][row[place] :]
        parts.entries[name] = np.append(np.frombuffer(data, np.uint8), rest)
        row[place] = len(data)
    row[TOP] = top
    refusal(path, put_together(parts))


def test_booleans_of_other_bytes_than_0_and_1(path):
    """They come back as true or false."""
    model = nn.Module()
    model.register_buffer("mask", torch.tensor([False, False, True, True]))
    data = storage.serialize(model)
    for parts in (parts_of(data), parts_of(as_version2(data))):
        parts.entries["floats"] = np.array([2, 255, 0, 1], np.uint8)
        path.write_bytes(put_together(parts))
        storage.load(path, model)
        assert model.mask.view(torch.uint8).tolist() == [1, 1, 0, 1]
