"""Language modelling: the cross entropy of tokens, and scores from totals over all of them."""

import math

import pytest
import torch
from torch import nn

from diffq_exp.data import TextData, Windows
from diffq_exp.results.headline import Headline
from diffq_exp.tasks import LanguageModelling
from diffq_exp.training.measure import evaluate

ONE = [1] * 5


def text(token_bytes=ONE, tokens=40, batch_size=3):
    sequence = torch.arange(tokens) % 5
    windows = Windows(length=8, batch_size=batch_size, device="cpu", seed=0)
    return TextData(
        "made", vocabulary=5, windows=windows, train=sequence, val=None, test=sequence, token_bytes=token_bytes
    )


class Unigram(nn.Module):
    """The same logits everywhere."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]))

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, 5)


def test_loss_is_the_mean_over_tokens():
    outputs, targets = torch.randn(2, 3, 5), torch.tensor([[0, 4, 1], [2, 2, 3]])
    logs = outputs.double().log_softmax(2)
    expected = -sum(float(logs[b, t, targets[b, t]]) for b in range(2) for t in range(3)) / 6
    task = LanguageModelling()
    assert float(task.loss(outputs, targets)) == pytest.approx(expected, rel=1e-6) and task.count(targets) == 6


def test_scores_come_from_totals_over_all_tokens_not_from_batches():
    """39 predictions in windows of 8: batches of 3 and 1 windows, and a last one of 7 tokens."""
    data, model = text(), Unigram()
    scores = evaluate(model, data.test, LanguageModelling(**data.task_arguments))
    nats = -model.logits.detach().log_softmax(0)
    targets = (torch.arange(1, 40)) % 5
    expected = float(nats[targets].mean())
    assert scores == {
        "loss": pytest.approx(expected), "bits_per_byte": pytest.approx(expected / math.log(2)),
        "perplexity": pytest.approx(math.exp(expected)),
    }  # fmt: skip


def test_tokens_of_several_bytes_are_scored_per_byte():
    sizes = [1, 2, 3, 4, 5]
    data = text(token_bytes=sizes)
    task = LanguageModelling(**data.task_arguments)
    scores = evaluate(Unigram(), data.test, task)
    total = sum(sizes[token % 5] for token in range(1, 40))
    assert scores["bits_per_byte"] == pytest.approx(scores["loss"] / math.log(2) * 39 / total)
    assert task.headline(data).chance is None


def test_without_bytes_the_headline_is_per_token():
    data = text(token_bytes=None)
    task = LanguageModelling(**data.task_arguments)
    headline = task.headline(data)
    assert (headline.name, headline.chance) == ("bits_per_token", math.log2(5))
    assert headline.name in evaluate(Unigram(), data.test, task)


def test_the_headline_of_bytes_is_lower_the_better_it_is():
    data = text()
    headline = LanguageModelling(**data.task_arguments).headline(data)
    assert headline == Headline("bits_per_byte", "bits per byte", "bits", False, math.log2(5), (0.05, 0.1))


def test_a_loss_beyond_all_floats_has_a_perplexity_still():
    assert math.isfinite(LanguageModelling().finish({"loss": 1e6})["perplexity"])
    assert math.isnan(LanguageModelling().finish({"loss": math.nan})["bits_per_token"])
