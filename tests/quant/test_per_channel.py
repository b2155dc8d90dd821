"""A scale for each channel: the same as if each channel were a tensor of its own, from training to the file."""

import copy

import pytest
import torch
from helpers.quant_models import Bag

from diffq_exp import storage
from diffq_exp.quant import LSQ, RateQuantizer, UniformQuantizer
from diffq_exp.quant.clipping import choose_ranges
from diffq_exp.storage.ledger import ledger

SHAPES = (5, 3, 3, 3), (4, 7), (6, 70_000)  # the last one is longer than a chunk of stored/groups.py
KINDS = {
    "uniform": (UniformQuantizer, {"bits": 3, "qat": True}),
    "fraction": (UniformQuantizer, {"bits": 2.5, "qat": True}),
    "mse": (UniformQuantizer, {"bits": 3, "ranges": "mse"}),
    "lsq": (LSQ, {"bits": 3}),
    "rate": (RateQuantizer, {"step": 0.7, "round_from": 0}),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def attached(kind, *shapes, **more):
    """A Bag whose channels differ in size, the same each time, and its quantizer, which needs no optimizer."""
    torch.manual_seed(0)
    quantizer_of_kind, keywords = KINDS[kind]
    model = Bag(*shapes)
    with torch.no_grad():
        for name in model.names:
            weight = getattr(model, name)
            weight.mul_(10 ** torch.linspace(-2, 1, len(weight)).view(-1, *[1] * (weight.dim() - 1))).add_(0.01)
    quantizer = quantizer_of_kind(model, min_size=0, **keywords, **more)
    quantizer.no_optimizer()
    return model, quantizer


@EACH
def test_each_channel_is_as_a_tensor_of_its_own(kind):
    model, quantizer = attached(kind, *SHAPES, per_channel=True)
    stored = dict(zip(model.names, model.eval()(), strict=True))
    for name in model.names:
        weight = getattr(model, name)
        alone = Bag(*([(1, *weight.shape[1:])] * len(weight)))
        with torch.no_grad():
            for own, row in zip(alone.names, weight, strict=True):
                getattr(alone, own).copy_(row)
        other = KINDS[kind][0](alone, min_size=0, **KINDS[kind][1])
        other.no_optimizer()
        for suffix in {name_of.removeprefix(name) for name_of in quantizer.learned() if name_of.startswith(name)}:
            steps = quantizer.learned()[name + suffix]
            assert steps.shape == (len(weight),)
            with torch.no_grad():
                for value, step in zip(other.learned().values(), steps, strict=True):
                    value.copy_(step)
        assert torch.equal(stored[name], torch.cat(alone.eval()())), name


@EACH
def test_finer_than_one_scale(kind):
    """Channels of sizes 0.01 to 10: their rounding errors are those of their own size."""
    per_channel = attached(kind, (6, 500), per_channel=True)[0]
    one_scale = attached(kind, (6, 500))[0]
    if kind == "rate":  # which begins with one step for all, so that small channels are zero
        with torch.no_grad():
            per_channel.w0_log_step += (per_channel.w0.abs().mean(1) / per_channel.w0.abs().mean()).log()
    smallest = [
        ((model.eval()()[0] - model.w0)[0] / model.w0[0].std()).square().mean()
        for model in (per_channel, one_scale)
    ]
    assert 5 * smallest[0] < smallest[1]


@EACH
def test_file_and_state(kind, tmp_path):
    model, quantizer = attached(kind, *SHAPES, per_channel=True)
    expected = [value.clone() for value in model.eval()()]
    storage.save(quantizer, tmp_path / "model.safetensors")
    twin, _ = attached(kind, *SHAPES, per_channel=True)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    storage.load(tmp_path / "model.safetensors", twin)
    assert all(map(torch.equal, twin.eval()(), expected))
    third, another = attached(kind, *SHAPES, per_channel=True)
    another.restore_quantized_state(quantizer.get_quantized_state())
    assert all(map(torch.equal, third.eval()(), expected))
    numbers = 2 if isinstance(quantizer, UniformQuantizer) else 1
    rows = {row.name: row for row in ledger(tmp_path / "model.safetensors")}
    assert [rows[name].scales for name in model.names] == [4 * numbers * shape[0] for shape in SHAPES]


@EACH
def test_size_counts_each_scale(kind):
    more = [attached(kind, *SHAPES, per_channel=per_channel)[1].true_model_size() for per_channel in (True, False)]
    bits = 64 if isinstance(attached(kind, (2, 2))[1], UniformQuantizer) else 32
    extra = bits * (sum(shape[0] for shape in SHAPES) - len(SHAPES)) / 8 / 2**20
    assert more[0] - more[1] == pytest.approx(extra, rel=1e-5)


@EACH
def test_tensors_of_one_dimension_have_one_scale(kind):
    _, quantizer = attached(kind, (30,), (1, 8), per_channel=True)
    for stored in quantizer.stored_model().tensors.values():
        assert stored.channel_size == 0


@pytest.mark.parametrize("kind", ["lsq", "rate"])
def test_gradients_are_those_of_the_channels(kind):
    """Of weight and steps: the same as of each channel as a tensor of its own."""
    model, quantizer = attached(kind, (4, 3, 3, 3), per_channel=True)
    rows = [attached(kind, (1, 3, 3, 3)) for _ in range(4)]
    upstream = torch.randn(4, 3, 3, 3)
    with torch.no_grad():
        for (row, own), weight, step in zip(rows, model.w0, *quantizer.learned().values(), strict=True):
            row.w0.copy_(weight)
            next(iter(own.learned().values())).copy_(step)
    model()[0].backward(upstream)
    for (row, _), grad in zip(rows, upstream, strict=True):
        row()[0].backward(grad[None])
    torch.testing.assert_close(model.w0.grad, torch.cat([row.w0.grad for row, _ in rows]))
    learned = [next(iter(own.learned().values())).grad for _, own in rows]
    torch.testing.assert_close(next(iter(quantizer.learned().values())).grad, torch.cat(learned))


@pytest.mark.parametrize("kind", ["lsq", "rate"])
def test_other_steps_are_refused_and_change_nothing(kind):
    state = attached(kind, (4, 7), per_channel=True)[1].get_quantized_state()
    model, quantizer = attached(kind, (4, 7))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="'w0' is stored on a grid 'step' with 4 numbers, the quantizer has 1"):
        quantizer.restore_quantized_state(state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_finds_steps_of_their_own():
    model, quantizer = attached("lsq", (3, 400), per_channel=True)
    optimizer = torch.optim.Adam([{"params": []}])
    quantizer.setup_optimizer(optimizer, lr=1e-2)
    target, before = model.w0.detach().clone(), model.w0_lsq.detach().clone()
    for _ in range(50):
        optimizer.zero_grad()
        (((model()[0] - target) / target.std(1, keepdim=True)) ** 2).mean().backward()
        optimizer.step()
    assert (model.w0_lsq != before).all()


def test_ranges_of_least_squared_error():
    """Not wider than needed: 2 bits of normal weights; and the whole range where it is best."""
    torch.manual_seed(0)
    weight = torch.randn(2, 5000)
    weight[1] = torch.linspace(-1, 1, 4).repeat(1250)  # on the grid already
    ranges = choose_ranges(weight, 3, "mse", per_channel=True)

    def error(row, low, high):
        step = (high - low) / 3
        return (((row - low) / step).round().clamp(0, 3) * step + low - row).square().mean()

    for row, (low, high) in zip(weight, ranges, strict=True):
        center, below, above = row.mean(), row.min() - row.mean(), row.max() - row.mean()
        tried = [error(row, center + a * below, center + a * above) for a in torch.linspace(0.1, 1, 200)]
        assert error(row, low, high) <= min(tried) * 1.01
    assert ranges[0, 1] < 0.7 * weight[0].max()
    assert ranges[1].tolist() == [-1, 1]
    constant = torch.full((2, 5), 3.0)
    assert torch.equal(choose_ranges(constant, 3, "mse", True), torch.full((2, 2), 3.0))
