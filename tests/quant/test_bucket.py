"""Tensors side by side: against each tensor by itself, at sizes where rows and groups end unevenly."""

import pytest
import torch
from quant_models import Bag, Net, images, same_bits
from torch import nn

from diffq_exp.quant import DiffQuantizer, bucket
from diffq_exp.quant.bucket import ROW, bucket_of, cut
from diffq_exp.quant.groups import dot_groups, sum_groups
from diffq_exp.quant.memory import Memory

ENTRIES = (ROW - 1, 1, ROW, 2 * ROW + 3, 24)
GROUPS = pytest.mark.parametrize("group_size", [0, 1, 5, 8, 600])


def some():
    return [torch.randn(entries, dtype=torch.float64) for entries in ENTRIES]


def shapes_of(parts):
    return [tuple(one.shape) for one in parts]


@GROUPS
def test_what_is_done_in_a_bucket_is_what_is_done_to_each(group_size):
    side_by_side, one, other = bucket_of(ENTRIES, group_size), some(), some()
    alone = [bucket_of((entries,), group_size) for entries in ENTRIES]
    numbers = [torch.randn(layout.groups[0], dtype=torch.float64) for layout in alone]
    joined = side_by_side.join(one, Memory())
    assert shapes_of(side_by_side.shaped(joined, shapes_of(one))) == shapes_of(one)
    assert shapes_of(side_by_side.split_groups(torch.cat(numbers))) == shapes_of(numbers)
    parts = zip(alone, one, other, numbers, strict=True)
    each = [layout.add_scaled(a, b, number, torch.empty_like(a)) for layout, a, b, number in parts]
    sides = joined, torch.cat(other), torch.cat(numbers)
    assert torch.equal(side_by_side.add_scaled(*sides, torch.empty_like(joined)), torch.cat(each))
    spread = [
        number.repeat_interleave(group_size or len(a))[: len(a)] for a, number in zip(one, numbers, strict=True)
    ]
    torch.testing.assert_close(torch.cat(each), joined + torch.cat(other) * torch.cat(spread))
    sums = side_by_side.dot(joined, torch.cat(other), torch.empty_like(torch.cat(numbers)))
    each = [sum_groups(a * b, group_size) for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(sums, torch.cat(each))
    torch.testing.assert_close(side_by_side.sum_groups(sums), torch.stack([part.sum() for part in each]))
    per_tensor = torch.randn(len(ENTRIES), dtype=torch.float64)
    spread = torch.cat([value.expand(len(part)) for value, part in zip(per_tensor, numbers, strict=True)])
    assert torch.equal(side_by_side.to_groups(per_tensor), spread)
    assert torch.equal(side_by_side.maxima(joined), torch.stack([part.max() for part in one]))


@pytest.mark.parametrize("size", [1, 2, 8, 511, 512, 513, 2000])
@pytest.mark.parametrize("tail", [0, 1])
def test_dot_groups(size, tail):
    one, other = torch.randn(2, 3 * size + tail * (size // 2)).double()
    out = torch.empty(-(-len(one) // size), dtype=torch.float64)
    torch.testing.assert_close(dot_groups(one, other, size, out), sum_groups(one * other, size))


def test_dot_groups_is_exact_inside_autocast():
    one, other = torch.randn(2, 800)
    with torch.autocast("cpu", torch.bfloat16):
        found = dot_groups(one, other, 8, torch.empty(100))
    torch.testing.assert_close(found, sum_groups(one * other, 8))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 4096])
def test_extremes_and_their_places(alone, rows_at_once, monkeypatch):
    monkeypatch.setattr(bucket, "ROWS_AT_ONCE", rows_at_once)
    parts = some()
    parts[3][[0, ROW - 1, ROW, 2 * ROW + 2]] = 9.0  # on both sides of where rows end
    parts[3][5], parts[4][:] = -9.0, 3.0  # one lowest; a constant tensor
    parts[0][7] = torch.nan
    for listed in [[part] for part in parts] if alone else [parts]:
        layout = bucket_of(tuple(len(part) for part in listed), 8)
        flat = layout.join(listed, Memory())
        low, high, places = layout.extremes(flat)
        begin = 0
        for which, part in enumerate(listed):
            torch.testing.assert_close(low[which], part.min(), equal_nan=True)
            torch.testing.assert_close(high[which], part.max(), equal_nan=True)
            mine = places.of == which
            expected = torch.zeros_like(part)
            if part.min() < part.max():
                for end, sign in ((part.min(), -1), (part.max(), 1)):
                    expected += sign * (part == end) / (part == end).sum()
            found = torch.zeros_like(part).index_add_(0, places.at[mine] - begin, places.share[mine])
            torch.testing.assert_close(found, expected)
            begin += len(part)


def test_buckets_are_neighbours_of_one_kind_and_bounded(monkeypatch):
    monkeypatch.setattr(bucket, "ALONE", 10)
    monkeypatch.setattr(bucket, "MOST", 20)
    sizes = [5, 5, 9, 1, 1, 11, 3, 30, 40, 2, 2]
    tensors = [torch.empty(size) for size in sizes]
    found = [sizes[one] for one in cut(tensors, tensors)]
    assert found == [[5, 5, 9, 1], [1], [11], [3], [30], [40], [2, 2]]
    tensors[1], others = tensors[1].double(), list(tensors)
    others[9] = others[9].double()
    found = [sizes[one] for one in cut(tensors, others)]
    assert found == [[5], [5], [9, 1, 1], [11], [3], [30], [40], [2], [2]]
    assert list(cut([], [])) == []


@pytest.mark.parametrize("alone", [False, True])
def test_weights_that_a_forward_does_not_use_have_no_gradient(alone, monkeypatch):
    """As without a quantizer: an optimizer with momentum then leaves them alone."""
    monkeypatch.setattr(bucket, "ALONE", 1 if alone else 2**62)
    model = Bag((6, 8), (40,), (9,))
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    first, _, third = model()
    (first.sum() + third.square().sum()).backward()
    assert model.w1.grad is None and model.w1_diffq.grad is None
    assert model.w0.grad is not None and (model.w2_diffq.grad != 0).any()


def test_gradients_do_not_depend_on_the_buckets(monkeypatch):
    found = []
    for alone in (1, 2**62):
        monkeypatch.setattr(bucket, "ALONE", alone)
        torch.manual_seed(1)
        model = Net().to(memory_format=torch.channels_last)
        DiffQuantizer(model, min_size=0, group_size=4, init_bits=3).no_optimizer()
        monkeypatch.setattr("diffq_exp.quant.noise_cpu.fill", lambda _, flats: [one.fill_(0.3) for one in flats])
        model(images()).square().sum().backward()
        found.append({name: param.grad for name, param in model.named_parameters()})
    assert found[0]["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name])
        assert grad.stride() == found[1][name].stride()


def test_noisy_weights_have_the_memory_format_of_the_weights():
    for shapes in ([(8, 4, 3, 3), (5,)], [(8, 4, 3, 3)], [(512, 64, 3, 3)]):  # in a bucket, and alone
        model = Bag(*shapes)
        model.w0.data = model.w0.data.to(memory_format=torch.channels_last)
        DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
        value = model()[0]
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert not same_bits(value, model.w0)


@pytest.mark.usefixtures("each_way")
def test_a_backward_takes_the_gradients_of_a_layer_before_it_goes_on():
    """Else all would be in memory at its end, and distributed training could send none before."""
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    seen = []
    for number, layer in enumerate(model):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: seen.append(f"weight {number}"))
        layer.register_full_backward_hook(lambda *_, number=number: seen.append(f"layer {number}"))
    out = model(torch.randn(2, 8, requires_grad=True))
    if not hasattr(out.grad_fn, "_set_sequence_nr"):
        pytest.skip("this torch has an order of its own")
    out.sum().backward()
    assert seen.index("weight 2") < seen.index("layer 0") and len(seen) == 6


@pytest.mark.usefixtures("each_way")
def test_a_logit_that_changes_before_the_backward_is_refused_by_autograd():
    model = Bag((8, 8), (40,))
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    value = model()[0]
    with torch.no_grad():
        model.w0_diffq.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()
