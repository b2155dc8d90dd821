"""Text: parts, windows, and their order as a function of (seed, epoch, batch)."""

import re

import pytest
import torch

from diffq_exp.data import WindowLoader, text, wikitext103
from diffq_exp.data.as_stored import follow
from diffq_exp.data.order import generator

HOW = {"seed": 0, "device": "cpu", "batch_size": 3}


def loader(tokens=101, length=8, train=True, seed=0):
    return WindowLoader(torch.arange(tokens), length=length, batch_size=3, device="cpu", seed=seed, train=train)


def test_parts_are_the_start_the_twentieth_before_the_last_tenth_and_the_last_tenth(tmp_path):
    file = tmp_path / "text.bin"
    file.write_bytes(bytes(range(200)) * 2)
    data = text(path=str(file), length=4, **HOW)
    assert data.facts == {"vocabulary": 256, "length": 4, "tokens": {"train": 340, "val": 40, "test": 20}}
    inputs, targets = zip(*data.test.epoch(0), strict=True)
    assert torch.cat([part.flatten() for part in inputs]).tolist() == list(range(140, 159))
    assert torch.cat([part.flatten() for part in targets]).tolist() == list(range(141, 160))
    assert next(data.val.epoch(0))[0][0].tolist() == [160, 161, 162, 163]
    assert data.model_arguments == {"vocabulary": 256, "length": 4} and data.unit == "windows"


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path):
    for name, content in {"b": b"2" * 60, "a": b"1" * 40, "c/d": b"3" * 100}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = text(path=str(tmp_path), length=4, val_share=0.0, test_share=0.9, **HOW)
    (inputs, _), *_ = [*data.test.epoch(0)]
    whole = torch.cat([part.flatten() for part, _ in data.test.epoch(0)]).tolist()
    assert data.val is None and inputs.shape == (3, 4)
    assert bytes(whole) == (b"1" * 40 + b"2" * 60 + b"3" * 100)[20:-1]


def test_training_windows_do_not_overlap_and_begin_elsewhere_in_each_epoch():
    first, second = (torch.cat([inputs for inputs, _ in loader().epoch(epoch)]) for epoch in (0, 1))
    for windows in (first, second):
        assert windows.flatten().unique().numel() == windows.numel() == 11 * 8
        assert (windows[:, 1:] - windows[:, :-1] == 1).all()
        assert len({int(start) % 8 for start in windows[:, 0]}) == 1
        assert windows[:, 0].tolist() != sorted(windows[:, 0].tolist())
    assert int(first[0, 0]) % 8 != int(second[0, 0]) % 8


def test_targets_are_the_tokens_that_follow():
    for train in (True, False):
        for inputs, targets in loader(train=train).epoch(3):
            assert torch.equal(targets, inputs + 1) and inputs.dtype == torch.int64


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("tokens", [101, 97, 30])
def test_an_epoch_is_entered_at_any_batch(tokens, train):
    whole = list(loader(tokens, train=train).epoch(2))
    assert len(whole) == len(loader(tokens, train=train))
    for first in range(len(whole) + 1):
        rest = list(loader(tokens, train=train).epoch(2, first_batch=first))
        assert len(rest) == len(whole) - first
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, whole[first:], strict=True))
    with pytest.raises(ValueError, match=r"first_batch=-1 is not in 0\.\."):
        loader(train=train).epoch(0, -1)


@pytest.mark.parametrize("tokens", range(16, 33))
def test_every_phase_fits(tokens):
    """At the largest phase the last target is the last token."""
    made = loader(tokens)
    for epoch in range(20):
        windows = [*made.epoch(epoch)]
        assert sum(len(inputs) for inputs, _ in windows) == made.examples
        assert max(int(targets.max()) for _, targets in windows) < tokens


@pytest.mark.parametrize("tokens", [2, 8, 9, 10, 17])
def test_all_tokens_but_the_first_are_predicted_once_in_evaluation(tokens):
    made = loader(tokens, train=False)
    targets = torch.cat([part.flatten() for _, part in made.epoch(0)])
    assert targets.tolist() == list(range(1, tokens)) and made.examples == -(-(tokens - 1) // 8)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader().epoch(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert generator("phase", 0, 1).initial_seed() != generator("phase", 1, 0).initial_seed()


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (b"", {}, "dataset.path=.*: an empty file"),
        (None, {}, r"dataset.path=.*: cannot be read \(No such file or directory\)"),
        (b"ab" * 50, {"length": 50}, "text f, train: 85 tokens are too few, 100 are needed at this length"),
        (b"a" * 20, {"length": 2}, "text f, test: 1 tokens are too few, 2 are needed"),
        (b"a" * 100, {"length": 2, "val_share": 0.95}, "val_share=0.95 and test_share=0.05 leave no text"),
        (b"a" * 100, {"length": 0}, "dataset.length=0 is not at least 1"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, content, changes, reason):
    file = tmp_path / "f"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        text(path=str(file), **{"length": 4, **HOW, **changes})
    assert re.search(reason, str(error.value)) and "\n" not in str(error.value)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="no file with content"):
        text(path=str(tmp_path), length=4, **HOW)


# ---- WikiText-103 -------------------------------------------------------------------------------------------


def made_wikitext(root, **changes):
    files = {
        "train": " \n = Title = \n \n a b a c <unk> a \n" * 5, "valid": " a d c \n" * 4,
        "test": " b a zebra \n" * 3, **changes,
    }  # fmt: skip
    for part, content in files.items():
        (root / f"wiki.{part}.tokens").write_text(content)
    return wikitext103(root=str(root), length=4, **HOW)


def test_words_are_numbered_by_how_often_the_training_file_has_them(tmp_path):
    data = made_wikitext(tmp_path)
    # <eos> 20 times, a 15, = 10, <unk> b c and Title 5 each
    assert data.vocabulary == 7 and data.facts["tokens"] == {"train": 65, "val": 16, "test": 12}
    inputs, targets = next(data.test.epoch(0))
    assert inputs[0].tolist() == [5, 1, 3, 0]  # b a <unk> <eos>
    assert targets[0].tolist() == [1, 3, 0, 5]
    assert data.task_arguments == {"token_bytes": None}


def test_without_unknown_words_in_training_there_is_still_a_number_for_them(tmp_path):
    data = made_wikitext(tmp_path, train="a b\n" * 20)
    assert data.vocabulary == 4 and int(next(data.val.epoch(0))[0].max()) == 3


def test_a_network_knows_its_words_by_their_hash(tmp_path):
    before = made_wikitext(tmp_path).input
    assert len(before["vocabulary_sha256"]) == 16
    assert follow(made_wikitext(tmp_path, test="b a\n" * 9), before) == []
    with pytest.raises(ValueError, match="the network was trained with vocabulary_sha256"):
        follow(made_wikitext(tmp_path, train=" \n = Title = \n \n a b a z <unk> a \n" * 5), before)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"wiki\.train\.tokens: cannot be read \(No such file .*dataset\.root holds"
    ):
        wikitext103(root=str(tmp_path), length=4, **HOW)
