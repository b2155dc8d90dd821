"""Logits and optimizers: who learns them, at which rate, in which order of calls."""

import pytest
import torch
from helpers.quant_models import Bag, Net, images, left_behind
from helpers.quant_reference import named_logits, named_weights
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer

METHODS = {
    "diffq": lambda model: DiffQuantizer(model, min_size=0, group_size=4),
    "rate": RateQuantizer,
    "lsq": lambda model: LSQ(model, min_size=0, bits=3),
    "uniform": lambda model: UniformQuantizer(model, min_size=0, qat=True),
}


def ids(params):
    return {id(p) for p in params}


def held(optimizer):
    return ids(p for group in optimizer.param_groups for p in group["params"])


def make(**keywords):
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.5)
    return model, optimizer, DiffQuantizer(model, **({"min_size": 0, "group_size": 4} | keywords))


def test_logits_get_a_group_of_their_own_without_weight_decay():
    model, optimizer, quantizer = make()
    quantizer.setup_optimizer(optimizer)
    weights, logits = optimizer.param_groups
    assert ids(weights["params"]) == ids(named_weights(model).values())
    assert ids(logits["params"]) == ids(named_logits(model).values())
    assert logits["lr"] == 1e-3 and logits["weight_decay"] == 0
    assert weights["lr"] == 0.1 and weights["weight_decay"] == 0.5


def test_rate_and_overrides():
    _, optimizer, quantizer = make()
    quantizer.setup_optimizer(optimizer, lr=0.02, betas=(0.5, 0.6))
    assert optimizer.param_groups[1]["lr"] == 0.02
    assert optimizer.param_groups[1]["betas"] == (0.5, 0.6)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_weight_decay_does_not_move_the_logits():
    model, optimizer, quantizer = make()
    quantizer.setup_optimizer(optimizer)
    model(images())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, p in named_logits(model).items():
        assert torch.equal(p, before[name + "_diffq"])
    assert not torch.equal(model.conv.weight, before["conv.weight"])


def test_an_optimizer_that_holds_the_logits_is_refused():
    model = Net()
    quantizer = DiffQuantizer(model, min_size=0)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises((ValueError, RuntimeError), match="optimizer"):
        quantizer.setup_optimizer(optimizer)
    assert len(optimizer.param_groups) == 1


def test_an_optimizer_that_holds_some_of_the_logits_is_refused():
    model, optimizer, quantizer = make()
    optimizer.add_param_group({"params": [model.head.weight_diffq]})
    with pytest.raises((ValueError, RuntimeError), match="optimizer"):
        quantizer.setup_optimizer(optimizer)


def test_setting_up_twice_is_refused():
    _, optimizer, quantizer = make()
    quantizer.setup_optimizer(optimizer)
    with pytest.raises((ValueError, RuntimeError), match="optimizer"):
        quantizer.setup_optimizer(optimizer)


def test_adam_for_the_logits_beside_sgd_for_the_weights():
    model = Net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    quantizer = DiffQuantizer(model, min_size=0, group_size=4)
    adam = torch.optim.Adam([{"params": []}])
    quantizer.setup_optimizer(adam, lr=0.05)
    assert held(sgd) == ids(named_weights(model).values())
    assert held(adam) == ids(named_logits(model).values())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    (model(images()).square().mean() + quantizer.model_size()).backward()
    adam.step()
    for name, p in model.named_parameters():
        if not name.endswith("_diffq"):
            assert torch.equal(p, before[name]), name
        elif p.grad.abs().min() > 1e-6:
            torch.testing.assert_close((p - before[name]).abs(), torch.full_like(p, 0.05), rtol=2e-2, atol=0)
    sgd.step()
    assert not torch.equal(model.conv.weight, before["conv.weight"])


def test_clear_optimizer_takes_the_logits_out():
    model, optimizer, quantizer = make()
    quantizer.setup_optimizer(optimizer)
    (model(images()).square().mean() + quantizer.model_size()).backward()
    optimizer.step()
    quantizer.clear_optimizer(optimizer)
    assert held(optimizer) == ids(named_weights(model).values())
    assert ids(optimizer.state) <= ids(named_weights(model).values())
    before = [p.detach().clone() for p in named_logits(model).values()]
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(named_logits(model).values(), before, strict=True))
    optimizer.load_state_dict(optimizer.state_dict())
    quantizer.setup_optimizer(optimizer, lr=0.3)
    assert optimizer.param_groups[-1]["lr"] == 0.3
    assert held(optimizer) == ids(model.parameters())


def test_clear_optimizer_of_an_optimizer_made_empty():
    model, _, quantizer = make()
    adam = torch.optim.Adam([{"params": []}])
    quantizer.setup_optimizer(adam)
    quantizer.clear_optimizer(adam)
    assert held(adam) == set()
    adam.step()
    quantizer.setup_optimizer(adam)
    assert held(adam) == ids(named_logits(model).values())


@pytest.mark.parametrize("kind", [DiffQuantizer, LSQ])
def test_training_before_an_optimizer_is_set_raises(kind):
    model = Net()
    quantizer = kind(model, min_size=0)
    with pytest.raises(RuntimeError, match="setup_optimizer"):
        model(images())
    assert left_behind(model) == []
    model.eval()(images())
    model.train()
    with pytest.raises(RuntimeError, match="no_optimizer"):
        model(images())
    with pytest.raises(RuntimeError, match="no_optimizer"), quantizer.noisy():
        model(images())
    quantizer.no_optimizer()
    model(images()).sum().backward()
    assert left_behind(model) == []


@pytest.mark.parametrize("qat", [True, False])
def test_uniform_has_nothing_to_optimize(qat):
    model = Net()
    quantizer = UniformQuantizer(model, min_size=0, qat=qat)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    quantizer.setup_optimizer(optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [len(params) for params in groups]
    model(images()).sum().backward()
    assert quantizer.learned() == {} and all(param.grad is not None for param in model.parameters())


def test_check_unused_zeroes_the_logits_of_what_took_no_part():
    model = Bag((6,), (7,), (8,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=4)
    quantizer.no_optimizer()
    (model()[0].square().sum() + quantizer.model_size()).backward()
    model.w2.grad = torch.zeros(8)
    model.w1.grad = None
    kept = model.w0_diffq.grad.clone()
    assert model.w1_diffq.grad.abs().min() > 0 and model.w2_diffq.grad.abs().min() > 0
    quantizer.check_unused()
    assert torch.equal(model.w0_diffq.grad, kept)
    for logits in (model.w1_diffq, model.w2_diffq):
        assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_check_unused_without_any_gradient():
    model = Bag((6,), (7,))
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.check_unused()
    quantizer.model_size().backward()
    quantizer.check_unused()
    assert all((p.grad == 0).all() for p in named_logits(model).values())


def test_check_unused_leaves_used_weights_with_some_zero_gradients():
    model = Bag((6,))
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.model_size().backward()
    model.w0.grad = torch.tensor([0, 0, 0, 1e-30, 0, 0])
    kept = model.w0_diffq.grad.clone()
    quantizer.check_unused()
    assert torch.equal(model.w0_diffq.grad, kept)


def test_lsq_takes_rate_and_weight_decay_of_the_optimizer():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, weight_decay=0.125, momentum=0.5)
    quantizer = LSQ(model, min_size=0, bits=3)
    quantizer.setup_optimizer(optimizer)
    group = optimizer.param_groups[1]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.25, 0.125, 0.5)
    assert ids(group["params"]) == ids(p for n, p in model.named_parameters() if n.endswith("_lsq"))
    quantizer.clear_optimizer(optimizer)
    quantizer.setup_optimizer(optimizer, lr=0.01, weight_decay=0)
    assert optimizer.param_groups[-1]["lr"] == 0.01 and optimizer.param_groups[-1]["weight_decay"] == 0


def test_training_lowers_bits_under_a_penalty_and_raises_them_where_noise_hurts():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0)
    quantizer = DiffQuantizer(model, min_size=0, group_size=0, init_bits=4)
    quantizer.setup_optimizer(optimizer, lr=1.0)
    x, target = torch.randn(64, 4), model(torch.eye(4)).detach()
    for penalty, rises in ((0.0, True), (1e7, False)):
        before = quantizer.bits()["0.weight"].clone()
        for _ in range(5):
            optimizer.zero_grad()
            loss = (model(x) - x @ target).square().mean() + penalty * quantizer.model_size()
            loss.backward()
            optimizer.step()
        assert (quantizer.bits()["0.weight"] > before).item() is rises


@pytest.mark.parametrize("method", METHODS)
def test_base_parameters_are_those_that_the_model_had(method):
    model = Net()
    before = list(model.parameters())
    quantizer = METHODS[method](model)
    assert [id(p) for p in quantizer.base_parameters()] == [id(p) for p in before]
    assert len(list(model.parameters())) == len(before) + len(quantizer.learned())
    optimizer = torch.optim.Adam(quantizer.base_parameters())
    quantizer.setup_optimizer(optimizer)
    assert held(optimizer) == ids(model.parameters())


def test_base_parameters_of_a_module_around_the_model():
    whole = nn.ModuleDict({"body": Net(), "head": nn.Linear(4, 2)})
    quantizer = DiffQuantizer(whole["body"], min_size=0)
    expected = ids(whole.parameters()) - ids(quantizer.learned().values())
    assert ids(quantizer.base_parameters(whole)) == expected > ids(quantizer.base_parameters())


def trained(method, state=None, steps=2):
    """A model whose quantizer was attached at its making, as other people's trainers have it."""
    torch.manual_seed(1)
    model = Net()
    quantizer = METHODS[method](model)
    optimizer = torch.optim.Adam(quantizer.base_parameters(), lr=0.01)
    quantizer.setup_optimizer(optimizer, lr=0.1)
    if state is not None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    for _ in range(steps):
        torch.manual_seed(2)
        optimizer.zero_grad()
        (model(images()).square().mean() + 100 * quantizer.model_size()).backward()
        optimizer.step()
    return model, quantizer, (model.state_dict(), optimizer.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_quantizer_attached_at_construction_is_resumed_by_state_dicts_alone(method):
    _, _, stopped = trained(method, steps=1)
    model, quantizer, _ = trained(method, stopped, steps=1)
    other, unbroken, _ = trained(method)
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert storage.serialize(quantizer) == storage.serialize(unbroken)


def test_an_optimizer_that_calls_the_forward_is_not_warned():
    """Lightning runs forward and backward inside optimizer.step(closure); a warning is an error here."""
    model = Net()
    quantizer = DiffQuantizer(model, min_size=0)
    optimizer = torch.optim.Adam(quantizer.base_parameters())
    quantizer.setup_optimizer(optimizer)

    def closure():
        loss = model(images()).square().mean() + quantizer.model_size()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.warns(UserWarning, match="an optimizer steps"):
        unseen, adam, other = make()
        other.setup_optimizer(adam)
        adam.step(lambda: unseen.forward(images()).mean().backward())


def test_the_copies_of_data_parallel_are_refused():
    model = Net()
    DiffQuantizer(model, min_size=0).no_optimizer()
    copy = model._replicate_for_data_parallel()  # what nn.DataParallel calls on each GPU
    with pytest.raises(RuntimeError, match="DistributedDataParallel"):
        copy(images())
