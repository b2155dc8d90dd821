"""The small decoder: sizes, causality, quantization of every weight."""

import pytest
import torch

from diffq_exp import models
from diffq_exp.models.gpt import Rotation, gpt
from diffq_exp.quant import DiffQuantizer


def test_parameters_are_those_of_the_blocks_and_the_embedding():
    model = gpt(256, 128)
    norms = (2 * 4 + 1) * 2 * 128
    assert sum(param.numel() for param in model.parameters()) == 4 * 12 * 128**2 + 256 * 128 + norms
    assert models.gpt is gpt


def test_a_token_depends_on_those_before_it_alone():
    model = gpt(11, 8, layers=2, width=16, heads=2).eval()
    tokens = torch.randint(11, (3, 8))
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 11
    before, after = model(tokens), model(changed)
    assert before.shape == (3, 8, 11)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-4)


def test_shorter_windows_give_the_same_logits():
    model = gpt(11, 8, layers=1, width=16, heads=4).eval()
    tokens = torch.randint(11, (2, 8))
    assert torch.allclose(model(tokens)[:, :3], model(tokens[:, :3]), atol=1e-5)


def test_every_weight_is_quantized_and_learned():
    model = gpt(11, 8, layers=2, width=16, heads=2)
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = DiffQuantizer(model, min_size=0, exclude=["*norm*"], group_size=4)
    quantizer.setup_optimizer(optimizer)
    assert sorted(quantizer.float_names) == sorted(name for name, _ in model.named_parameters() if "norm" in name)
    (model(torch.randint(11, (2, 8))).square().mean() + quantizer.model_size()).backward()
    assert all(param.grad is not None and param.grad.abs().sum() > 0 for param in model.parameters())


def test_attention_knows_how_far_apart_tokens_are_and_not_where():
    rotation = Rotation(20, 6)
    query, key = torch.randn(2, 1, 1, 1, 6)
    at = {place: rotation(torch.cat([torch.zeros(1, 1, place, 6), query], 2))[0, 0, -1] for place in (3, 8)}
    other = {place: rotation(torch.cat([torch.zeros(1, 1, place, 6), key], 2))[0, 0, -1] for place in (5, 10, 12)}
    assert torch.allclose(at[3] @ other[5], at[8] @ other[10], atol=1e-5)
    assert not torch.allclose(at[3] @ other[5], at[8] @ other[12], atol=1e-3)
    assert not rotation.state_dict()


def test_dropout_acts_in_training_alone():
    model = gpt(11, 8, layers=1, width=16, heads=2, dropout=0.5)
    tokens = torch.randint(11, (2, 8))
    assert not torch.equal(model(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"width": 10, "heads": 4}, r"model\.width=10 is no multiple of 8, twice model\.heads=4"),
        ({"layers": 0}, r"model\.layers=0 is not at least 1"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0 is not in \[0, 1\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, reason):
    with pytest.raises(ValueError, match=reason):
        gpt(11, 8, **sizes)
