"""Memory that goes round: who has it, when it comes back, and that nobody sees another's."""

import copy
import gc
import pickle

import pytest
import torch
from quant_models import Bag, same_bits

from diffq_exp.quant import DiffQuantizer
from diffq_exp.quant.memory import LARGE, Memory, in_cpu_memory

MANY = LARGE // 4  # float32 entries


def test_the_memory_of_a_dead_tensor_is_given_out_again():
    memory = Memory()
    first = memory.empty(MANY, torch.float32)
    place = first.data_ptr()
    view = first[5:7]
    del first
    second = memory.empty(MANY, torch.float32)
    assert second.data_ptr() != place  # a view still holds it
    del view
    third = memory.empty(MANY // 2, torch.float64)
    assert third.data_ptr() == place and third.dtype == torch.float64
    assert memory.empty(2 * MANY, torch.float32).data_ptr() not in (place, second.data_ptr())


def test_clear_lets_go_and_what_is_out_comes_back():
    memory = Memory()
    kept, dead = (memory.empty(MANY, torch.float32) for _ in range(2))
    place = kept.data_ptr()
    del dead
    memory.clear()
    assert not any(memory._free.values())
    del kept
    assert memory.empty(MANY, torch.float32).data_ptr() == place


def test_tensors_outlive_the_memory():
    memory = Memory()
    tensor = memory.empty(MANY, torch.float32).fill_(3)
    del memory
    gc.collect()
    assert (tensor == 3).all()


@pytest.mark.parametrize("shape", [(64, 64, 8, 8), (3, 5)])
def test_empty_like_has_the_layout(shape):
    memory = Memory()
    for like in (torch.empty(shape), torch.empty(shape).transpose(0, 1), torch.empty(*shape[:-1], 64)[..., :2]):
        given = memory.empty_like(like)
        assert (given.shape, given.dtype, given._is_view()) == (like.shape, like.dtype, False)
        assert given.stride() == torch.empty_like(like).stride()


def test_copies_begin_with_nothing():
    memory = Memory()
    memory.empty(MANY, torch.float32)
    assert any(memory._free.values())
    for other in (copy.deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert not other._free


def test_what_numpy_cannot_look_at():
    assert in_cpu_memory(torch.nn.Parameter(torch.empty(1)))
    for other in (torch.empty(1, device="meta"), torch.empty(1).half(), torch.empty(0)):
        assert not in_cpu_memory(other)


def large_model():
    model = Bag((MANY,), (64, 64, 8, 8))
    DiffQuantizer(model, min_size=0, group_size=8, init_bits=3).no_optimizer()
    return model


def test_graphs_that_live_on_keep_their_noise():
    """Three forwards before the backwards: each has weights, noise and gradients of its own."""
    model, upstream = large_model(), torch.randn(MANY)
    expected = []
    torch.manual_seed(5)
    for _ in range(3):
        model.zero_grad()
        (model()[0] * upstream).sum().backward()
        expected.append((model.w0.grad.clone(), model.w0_diffq.grad.clone()))
    torch.manual_seed(5)
    values = [model()[0] for _ in range(3)]
    copies = [value.detach().clone() for value in values]
    for value, kept, (weight, logits) in zip(values, copies, expected, strict=True):
        assert same_bits(value, kept)
        model.zero_grad()
        (value * upstream).sum().backward()
        assert same_bits(model.w0.grad, weight) and same_bits(model.w0_diffq.grad, logits)


def test_gradients_are_not_written_over_by_the_next_steps():
    model = large_model()
    model()[0].square().sum().backward()
    grads = [param.grad for param in model.parameters() if param.grad is not None]
    kept = [grad.clone() for grad in grads]
    model.zero_grad()
    for _ in range(2):
        sum(value.sum() for value in model()).backward()
    assert all(same_bits(grad, copy) for grad, copy in zip(grads, kept, strict=True))


def test_evaluation_gives_the_memory_back_to_the_system():
    model = large_model()
    memory = model._forward_pre_hooks[next(iter(model._forward_pre_hooks))].__self__._memory
    model()[0].sum().backward()
    assert any(memory._free.values())
    model.eval()
    model()
    assert not any(memory._free.values())
