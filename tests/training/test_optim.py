"""The optimizers of weights and bits as one: groups, rates, clipping, a scaler that steps both or neither."""

import copy
import math

import pytest
import torch
from helpers.run_pieces import TinyNet, tiny_optimizers
from torch.optim import SGD, Adam, AdamW

from diffq_exp.quant import LSQ, DiffQuantizer
from diffq_exp.training.optim import make_optimizers
from diffq_exp.training.schedule import Constant, Cosine, Step

pytestmark = pytest.mark.filterwarnings("ignore:an optimizer steps")  # with gradients that are set by hand


def grads(model, value=1.0):
    for param in model.parameters():
        param.grad = torch.full_like(param, value)


def group_of(optimizers, param):
    (group,) = [g for g in optimizers.param_groups if any(param is one for one in g["params"])]
    return group


def both(optimizer="sgd", quantizer="diffq"):
    torch.manual_seed(0)
    model = TinyNet()
    optimizers, made = tiny_optimizers(model, quantizer, optimizer)
    return model, optimizers, made


# ---- groups -------------------------------------------------------------------------------------------------


def test_logits_join_an_adam_as_a_group_without_weight_decay_at_bits_lr():
    model = TinyNet()
    optimizers, quantizer = make_optimizers(
        model, lambda params: AdamW(params, lr=0.01, weight_decay=0.3),
        lambda: DiffQuantizer(model, 0.0005), {"lr": 0.07},
    )  # fmt: skip
    assert len(optimizers.optimizers) == 1
    weights, logits = optimizers.param_groups
    assert {id(one) for one in logits["params"]} == {id(one) for one in quantizer.learned().values()}
    assert (logits["lr"], logits["weight_decay"]) == (0.07, 0.0)
    assert (weights["lr"], weights["weight_decay"]) == (0.01, 0.3)


def test_beside_sgd_the_logits_have_an_adam_of_their_own():
    _, optimizers, quantizer = both("sgd")
    weights, bits = optimizers.optimizers
    assert type(weights) is SGD and type(bits) is Adam
    (group,) = bits.param_groups  # no empty one is left
    assert {id(one) for one in group["params"]} == {id(one) for one in quantizer.learned().values()}
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.0)
    learned = set(map(id, quantizer.learned().values()))
    assert not learned & {id(one) for g in weights.param_groups for one in g["params"]}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("quantizer", ["none", "diffq", "uniform_noise", "qat", "lsq"])
def test_every_parameter_is_in_exactly_one_group(quantizer, optimizer):
    model, optimizers, _ = both(optimizer, quantizer)
    held = [id(one) for group in optimizers.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in model.parameters())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_and_learned_are_told_apart(optimizer):
    model, optimizers, quantizer = both(optimizer)
    learned = {id(one) for one in quantizer.learned().values()}
    assert {id(one) for one in optimizers.params(learned=True)} == learned
    assert {id(one) for one in optimizers.params(learned=False)} == set(map(id, model.parameters())) - learned


def test_lsq_steps_train_with_rate_and_decay_of_the_weights_optimizer():
    model = TinyNet()
    optimizers, quantizer = make_optimizers(
        model, lambda params: SGD(params, lr=0.3, momentum=0.5, weight_decay=0.2),
        lambda: LSQ(model, 4, 0.0005), {},
    )  # fmt: skip
    assert [type(one) for one in optimizers.optimizers] == [SGD]
    for step in quantizer.learned().values():
        group = group_of(optimizers, step)
        assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.2, 0.5)


def test_without_a_quantizer_there_is_one_optimizer():
    _, optimizers, quantizer = both("sgd", "none")
    assert quantizer is None and len(optimizers.optimizers) == 1 and not optimizers.params(learned=True)


def test_zero_grad_is_for_all():
    model, optimizers, _ = both()
    grads(model)
    optimizers.zero_grad()
    assert all(param.grad is None or not param.grad.any() for param in model.parameters())


def test_both_step():
    model, optimizers, quantizer = both("sgd")
    before = copy.deepcopy(model.state_dict())
    grads(model)
    optimizers.step()
    for name, value in model.named_parameters():
        assert not torch.equal(value, before[name]), name
    for name, value in quantizer.learned().items():  # the first step of Adam is of the length of its rate
        assert torch.allclose(before[name] - value, torch.tensor(0.05), atol=1e-5), name


# ---- rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("bits", [False, True])
def test_a_schedule_leaves_the_rate_of_the_bits_alone_unless_asked(optimizer, bits):
    model, optimizers, quantizer = both(optimizer)
    base = group_of(optimizers, model.conv.bias)["lr"]
    logit = next(iter(quantizer.learned().values()))
    for epoch, share in ((0, 1.0), (5, 0.5), (7.5, 0.5 - 0.5 * math.sqrt(0.5)), (0, 1.0)):
        optimizers.set_rates(Cosine(bits=bits), epoch, 10)
        assert group_of(optimizers, model.conv.bias)["lr"] == pytest.approx(base * share)
        assert group_of(optimizers, logit)["lr"] == pytest.approx(0.05 * (share if bits else 1))


def test_lsq_steps_have_no_rate_of_their_own_and_follow_the_schedule():
    model = TinyNet()
    optimizers, quantizer = make_optimizers(
        model, lambda params: SGD(params, lr=0.3), lambda: LSQ(model, 4, 0.0005), {}
    )
    optimizers.set_rates(Cosine(), 5, 10)
    for step in quantizer.learned().values():
        assert group_of(optimizers, step)["lr"] == pytest.approx(0.15)


def test_rates_after_loading_a_state_are_shares_of_the_first_rate():
    """A state saved at a low rate does not make that the new base."""
    _, optimizers, _ = both()
    optimizers.set_rates(Step(every=1, decay=0.1), 2, 3)
    state = copy.deepcopy(optimizers.state_dict())
    _, fresh, _ = both()
    fresh.load_state_dict(state)
    fresh.set_rates(Constant(), 2, 3)
    assert [group["lr"] for group in fresh.param_groups] == [0.05, 0.05]


# ---- clipping -----------------------------------------------------------------------------------------------


def norm(params):
    return float(torch.cat([param.grad.flatten() for param in params]).norm())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_norms_of_weights_and_bits_are_clipped_apart(optimizer):
    model, optimizers, _ = both(optimizer)
    weights, logits = optimizers.params(learned=False), optimizers.params(learned=True)
    grads(model, 1.0)
    for param in logits:
        param.grad.fill_(1e-4)
    small = norm(logits)
    optimizers.clip(5.0)
    assert norm(weights) == pytest.approx(5.0, rel=1e-4)
    assert norm(logits) == pytest.approx(small)  # would shrink in a norm taken together
    grads(model, 1.0)
    optimizers.clip(5.0)
    assert norm(weights) == pytest.approx(5.0, rel=1e-4) and norm(logits) == pytest.approx(5.0, rel=1e-4)


@pytest.mark.parametrize("spoilt", ["weights", "logits"])
def test_trap_10_a_nan_gradient_of_one_leaves_the_other_finite(spoilt):
    model, optimizers, quantizer = both()
    learned = next(iter(quantizer.learned().values()))
    grads(model)
    (model.conv.weight if spoilt == "weights" else learned).grad.view(-1)[0] = math.nan
    optimizers.clip(5.0)
    others = optimizers.params(learned=spoilt == "weights")
    assert others and all(torch.isfinite(param.grad).all() for param in others)
    assert norm(others) == pytest.approx(5.0, rel=1e-4)


def test_clipping_with_gradients_missing():
    model, optimizers, _ = both()
    grads(model)
    for param in optimizers.params(learned=True):
        param.grad = None
    optimizers.clip(1.0)
    assert norm(optimizers.params(learned=False)) == pytest.approx(1.0, rel=1e-4)


# ---- scaler -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("spoilt", ["nothing", "weights", "logits"])
@pytest.mark.parametrize("clip", [False, True])
def test_trap_10_a_scaler_steps_both_or_neither(optimizer, spoilt, clip):
    model, optimizers, quantizer = both(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = copy.deepcopy(model.state_dict())
    loss = model.head.weight.sum() + sum(logit.sum() for logit in quantizer.learned().values())
    scaler.scale(loss).backward()
    if spoilt == "weights":
        model.head.weight.grad[0, 0] = math.inf
    elif spoilt == "logits":
        next(iter(quantizer.learned().values())).grad[0] = math.inf
    if clip:
        scaler.unscale_(optimizers)
        optimizers.clip(1e9)
        if spoilt == "nothing":
            assert torch.allclose(model.head.weight.grad, torch.ones(()), atol=1e-6)  # unscaled
    scaler.step(optimizers)
    scaler.update()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == (set() if spoilt != "nothing" else {"head.weight", *quantizer.learned()})
    assert scaler.get_scale() == (1024.0 if spoilt == "nothing" else 512.0)


# ---- state --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("quantizer", ["none", "diffq", "lsq"])
def test_state_goes_round(optimizer, quantizer, tmp_path):
    model, optimizers, _ = both(optimizer, quantizer)
    for step in range(3):
        grads(model, 0.1 * (step + 1))
        optimizers.step()
    torch.save([model.state_dict(), optimizers.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    again, fresh, _ = both(optimizer, quantizer)
    again.load_state_dict(weights)
    fresh.load_state_dict(state)
    for one in (model, again):
        grads(one, -0.3)
    optimizers.step()
    fresh.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_state_of_two_optimizers_does_not_go_into_one():
    _, two, _ = both("sgd")
    _, one, _ = both("adam")
    with pytest.raises(ValueError):
        one.load_state_dict(two.state_dict())
