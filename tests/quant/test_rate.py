"""The rate quantizer: steps around zero, noise and then rounding, and a size that is what the coder spends."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from helpers.quant_models import Bag, Tied, left_behind
from helpers.run_configs import TINY, do
from torch import nn
from torch.nn import functional

from diffq_exp import storage
from diffq_exp.quant import Noise, RateQuantizer
from diffq_exp.quant.coded_bits import estimated_bits


class Half(Noise):
    """A noise that is known."""

    def draw(self, weight, step):
        return torch.full_like(weight, 0.5)


def ready(model, progress=0.0, **options):
    quantizer = RateQuantizer(model, **options)
    quantizer.no_optimizer()
    quantizer.at(progress)
    return quantizer


def sparse(*shape, seed=0, rows=0.3, columns=0.3, fill=0.4):
    """Levels as training leaves them: most rows and columns are empty."""
    source = torch.Generator().manual_seed(seed)
    alive = (torch.rand(shape[0], 1, generator=source) < rows) & (
        torch.rand(1, shape[1], generator=source) < columns
    )
    alive = alive.view(shape[0], shape[1], *[1] * (len(shape) - 2))
    sizes = torch.randint(1, 3, shape, generator=source) * (torch.rand(shape, generator=source) < fill) * alive
    return sizes * torch.where(torch.rand(shape, generator=source) < 0.5, -1, 1)


# ---- what is quantized, and what a forward sees ------------------------------------------------------------------


def test_everything_of_two_dimensions_is_quantized_and_nothing_else():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2), nn.LSTM(2, 3))
    quantizer = RateQuantizer(model)
    assert set(quantizer.quantized_names) == {
        name for name, param in model.named_parameters() if param.dim() > 1 and "log_step" not in name
    }
    assert quantizer.float_names and all(model.get_parameter(name).dim() == 1 for name in quantizer.float_names)


def test_biases_are_quantized_too_where_they_are_asked_for():
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))
    with torch.no_grad():
        model[2].bias.zero_()
    quantizer = ready(model, least_dims=1, exclude=["2.weight"])
    assert quantizer.quantized_names == ["0.weight", "0.bias", "2.bias"]
    vector = quantizer.selection.quantized[1]
    levels = (model[0].bias / quantizer.step(vector)).abs()
    torch.testing.assert_close(estimated_bits(levels), estimated_bits(levels.view(1, 1, 40)))  # one kernel
    torch.testing.assert_close(quantizer.widths(vector)[0] * 40, estimated_bits(levels.round()).sum() + 32)
    zeros = quantizer.selection.quantized[2]
    assert quantizer.step(zeros).item() == pytest.approx(0.3 * 0.01)  # wide enough for what training gives it


@pytest.mark.parametrize("progress", [0.0, 0.29])
def test_before_rounding_a_weight_carries_its_noise(progress):
    model = Bag((5, 4))
    quantizer = ready(model, progress, noise=Half(), step=0.4)
    step = 0.4 * model.w0.detach().abs().mean()
    torch.testing.assert_close(model()[0], model.w0 + step * 0.5)
    assert quantizer.learned()["w0_log_step"].shape == (1,)


@pytest.mark.parametrize("progress", [0.3, 1.0])
def test_from_its_share_of_training_on_a_weight_is_rounded(progress):
    model = Bag((5, 4))
    quantizer = ready(model, progress, step=0.4)
    step = quantizer.step(quantizer.selection.quantized[0]).detach()
    torch.testing.assert_close(model()[0], (model.w0 / step).round() * step)


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_gradients_are_those_of_the_formula_in_float64(progress):
    model = Bag((6, 5)).double()
    quantizer = ready(model, progress, noise=Half())
    value = model()[0]
    upstream = torch.randn_like(value)
    value.backward(upstream)
    item = quantizer.selection.quantized[0]
    weight = model.w0.detach().clone().requires_grad_()
    log_step = quantizer.learned()["w0_log_step"].detach().double().clone().requires_grad_()
    step = log_step.exp()
    error = torch.full_like(weight, 0.5) if progress == 0 else ((weight / step).round() - weight / step).detach()
    expected = torch.autograd.grad(weight + step * error, [weight, log_step], upstream)
    torch.testing.assert_close(model.w0.grad, expected[0])
    torch.testing.assert_close(item.uses[0].module.w0_log_step.grad.double(), expected[1])


def test_a_forward_that_fails_leaves_the_float_weights():
    model = Bag((5, 4))
    before = model.w0.detach().clone()
    ready(model, 1.0)
    model()
    assert not left_behind(model) and torch.equal(model.w0, before)


# ---- the size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (128, 64, 3, 3), (100, 200), (500, 50, 5, 5)])
@pytest.mark.parametrize("rows, columns", [(0.3, 0.3), (0.8, 0.2), (1.0, 1.0)])
def test_the_estimate_is_what_the_coder_spends(shape, rows, columns):
    levels = sparse(*shape, rows=rows, columns=columns)
    model = Bag(shape)
    model.w0.data = levels.float()
    quantizer = ready(model, 1.0)
    with torch.no_grad():
        quantizer.learned()["w0_log_step"].zero_()
    row = storage.coding.encode_tensor(
        *(getattr(quantizer.stored_model().tensors["w0"], part).numpy() for part in ("levels", "bits")),
        0,
        None,
        shape,
    )
    spent = 8 * (len(row.levels) + len(row.models) + len(row.bits))
    assert float(estimated_bits(levels.abs().float()).sum()) == pytest.approx(spent, rel=0.12)


def test_the_size_pulls_weights_to_zero_and_most_of_all_in_empty_rows():
    model = Bag((8, 6))
    model.w0.data = torch.full((8, 6), 3.0)
    model.w0.data[0] = 0.6
    quantizer = ready(model, 1.0)
    with torch.no_grad():
        quantizer.learned()["w0_log_step"].zero_()
    quantizer.model_size().backward()
    assert (model.w0.grad > 0).all()
    assert model.w0.grad[0].min() > 2 * model.w0.grad[1:].max()
    assert quantizer.learned()["w0_log_step"].grad < 0  # a larger step has fewer levels


def test_a_mean_of_nothing_is_finite():
    sizes = torch.zeros(4, 3, 9, requires_grad=True)
    bits = estimated_bits(sizes).sum()
    bits.backward()
    assert 0 <= float(bits.detach()) < 40 and torch.isfinite(sizes.grad).all()


def test_rows_of_zeros_show_in_the_widths():
    model = Bag((6, 40))
    model.w0.data[2:] = 0
    quantizer = ready(model, 1.0)
    widths = quantizer.bits()["w0"]
    assert widths.shape == (6,) and widths[2:].max() < 0.2 < 1 < widths[:2].min()


# ---- what is stored ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e4])
def test_evaluation_is_the_file(tmp_path, scale):
    model = Bag((12, 6, 3, 3), (7, 5), (4,))
    model.w0.data *= scale
    ready(model, 1.0)
    seen = [value.clone() for value in model.eval()()]
    storage.save(model, tmp_path / "model.safetensors", {})
    fresh = Bag((12, 6, 3, 3), (7, 5), (4,)).eval()
    storage.load(tmp_path / "model.safetensors", fresh)
    assert all(torch.equal(*pair) for pair in zip(seen, fresh(), strict=True))


def test_a_state_is_taken_up_with_its_step():
    model, other = Bag((12, 6)), Bag((12, 6))
    first, second = ready(model, 1.0), ready(other, 1.0)
    second.restore_quantized_state(first.get_quantized_state())
    assert torch.equal(model.eval()()[0], other.eval()()[0])
    torch.testing.assert_close(second.learned()["w0_log_step"], first.learned()["w0_log_step"])


def test_empty_rows_cost_next_to_nothing():
    full, empty = Bag((256, 64, 3, 3)), Bag((256, 64, 3, 3))
    empty.w0.data[4:] = 0
    sizes = []
    for model, step in ((full, 1.0), (empty, 64.0)):  # of the mean, which the empty rows make small
        ready(model, 1.0, step=step)
        sizes.append(len(storage.serialize(model)))
    assert sizes[1] < sizes[0] / 25


# ---- networks ---------------------------------------------------------------------------------------------------


def test_tied_weights_are_one():
    model = Tied()
    quantizer = ready(model, 1.0)
    assert quantizer.tied_names and len(set(quantizer.quantized_names)) == len(quantizer.quantized_names)


def test_lstm_channels_last_and_copies_see_rounded_weights():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(2), nn.LSTM(36, 3, batch_first=True))
    model = model.to(memory_format=torch.channels_last)
    ready(model, 1.0)
    batch = torch.randn(2, 1, 8, 8)
    outputs = []
    for network in (model, copy.deepcopy(model)):
        trained, evaluated = network.train()(batch)[0], network.eval()(batch)[0]
        torch.testing.assert_close(trained, evaluated)  # rounded in both
        outputs.append(evaluated)
    assert torch.equal(*outputs)


def test_compiled_it_is_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    ready(model, 1.0)
    inputs = torch.randn(5, 6)
    eager = model(inputs)
    compiled = torch.compile(model, backend="eager")(inputs)
    torch.testing.assert_close(compiled, eager)


def test_it_learns_in_anyones_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
    inputs = torch.randn(256, 10)
    targets = inputs[:, :2].sum(1, keepdim=True)  # eight inputs are of no use
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    quantizer = RateQuantizer(model)
    quantizer.setup_optimizer(optimizer)
    first = float(quantizer.size_bits(True))
    for step in range(300):
        quantizer.at(step / 300)
        loss = functional.mse_loss(model(inputs), targets) + 200 * quantizer.model_size()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quantizer.at(1.0)
    error = functional.mse_loss(model.eval()(inputs), targets).item()
    assert float(quantizer.size_bits(True)) < first / 2 and error < 0.2
    assert (quantizer.stored_model().tensors["0.weight"].values()[:, 2:] == 0).float().mean() > 0.7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"step": 0}, "step"), ({"step": math.nan}, "step"), ({"round_from": 1.5}, "round_from"),
        ({"round_from": "late"}, "round_from"), ({"noise": "pink"}, "gaussian, uniform, none"),
        ({"suffix": "a.b"}, "suffix"),
    ],
)  # fmt: skip
def test_arguments_that_are_wrong_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        RateQuantizer(Bag((3, 3)), **options)


def test_the_command_trains_stores_and_measures_it(tmp_path):
    outcome = do(*TINY, "storage.coding=auto", "quantizer=rate", "penalty=100", root=tmp_path)
    record = json.loads((outcome.folder / "result.json").read_text())
    assert record["status"] == "finished" and record["choices"]["quantizer"] == "rate"
    sizes = record["size_mb"]
    assert sizes["measure"] == "coded"
    assert sizes["file"] == pytest.approx(sizes["true"], rel=0.1) and sizes["file"] < sizes["float32"] / 4
