"""Small networks for the tests, importable so that they pickle, and ways to look into a forward."""

import torch
from helpers.quant_philox import noise_after_seed
from helpers.quant_reference import logits_for, named_logits, named_weights, noisy_weight
from torch import nn

from diffq_exp.quant import DiffQuantizer, quantizer_of


class Bag(nn.Module):
    """Parameters w0, w1, ... of the given shapes; a forward returns the tensors it would compute with."""

    def __init__(self, *shapes):
        super().__init__()
        self.names = [f"w{i}" for i in range(len(shapes))]
        for name, shape in zip(self.names, shapes, strict=True):
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self):
        return [getattr(self, name) for name in self.names]


def noisy_bag(setting, *shapes, spread=2.0, device="cpu"):
    """A Bag with a quantizer that needs no optimizer, and logits of that standard deviation."""
    model = Bag(*shapes)
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    for logits in named_logits(model).values():
        nn.init.normal_(logits, std=spread)
    return model.to(device)


def one_step(model, seed=4):
    """What a Bag gives and all its gradients, of noise and size."""
    torch.manual_seed(seed)
    values = model()
    model.zero_grad()
    (sum(value.square().sum() for value in values) + quantizer_of(model).model_size()).backward()
    return [one.detach().clone() for one in values] + [one.grad.clone() for one in model.parameters()]


def assert_forward_and_gradients(model, setting, seed=3, rank=0, grad_format=torch.contiguous_format):
    """Those of the formula, with the noise that Philox gives for this seed; -> what the forward gave."""
    weights = [getattr(model, name) for name in model.names]
    drawn = noise_after_seed(seed, [w.numel() for w in weights], setting.group_size, setting.noise, rank)
    torch.manual_seed(seed)
    values = model()
    upstream = [torch.randn(value.shape).to(memory_format=grad_format) for value in values]
    torch.autograd.backward(values, [grad.to(values[0].device) for grad in upstream])
    for name, weight, value, g, eps in zip(model.names, weights, values, upstream, drawn, strict=True):
        logits = named_logits(model)[name]
        w, l_ = (one.detach().cpu().double().requires_grad_() for one in (weight, logits))
        expected = noisy_weight(w, l_, eps.view(w.shape), setting)
        torch.testing.assert_close(value.cpu().double(), expected, rtol=1e-6, atol=1e-6)
        grads = torch.autograd.grad(expected, [w, l_], g.double())
        for found, exact in zip((weight.grad, logits.grad), grads, strict=True):
            bound = 1e-5 * exact.abs().max().item() + 1e-9
            torch.testing.assert_close(found.cpu().double(), exact, rtol=1e-5, atol=bound)
    return values


class Net(nn.Module):
    """A convolution, a batch norm and a linear layer: (B, 3, 6, 6) -> (B, classes)."""

    def __init__(self, width=6, classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Tied(nn.Module):
    """A table that is the last layer's weight too, and a bias under two names: (B,) -> (B, 11)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 7)
        self.mid = nn.Linear(7, 7)
        self.norm = nn.LayerNorm(7)
        self.out = nn.Linear(7, 11, bias=False)
        self.out.weight = self.embed.weight
        self.norm.bias = self.mid.bias

    def forward(self, x):
        return self.out(self.norm(self.mid(self.embed(x))))


class TwoNames(nn.Module):
    """One tensor as a.weight and b.weight, registered in the order given: (B, 6) -> (B, 6)."""

    def __init__(self, order=("a", "b")):
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(6, 6, bias=False))
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Bomb(nn.Module):
    """Passes its input on, or raises what is put in `error`."""

    error = None

    def forward(self, x):
        if self.error is not None:
            raise self.error("bomb")
        return x


class Bombed(nn.Module):
    """Linear, bomb, linear: (B, 5) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 8)
        self.bomb = Bomb()
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        return self.last(self.bomb(self.first(x)))


def owners(model):
    """(full name, module, last part) of every parameter, each name of a tied one."""
    for name, _ in model.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        yield name, model.get_submodule(path), leaf


def seen_weights(model, *inputs):
    """The output of a forward, and {name: the tensor it computed with} as seen by a module inside."""
    seen = {}

    def look(*_):
        seen.update({name: getattr(module, leaf) for name, module, leaf in owners(model)})

    hook = model.register_forward_pre_hook(look)
    try:
        return model(*inputs), seen
    finally:
        hook.remove()


def left_behind(model):
    """Names of parameters beside which something still stands in a module's __dict__."""
    return [name for name, module, leaf in owners(model) if leaf in module.__dict__]


def hidden(model):
    """Names under which a module finds something else than its parameter."""
    return [n for n, module, leaf in owners(model) if getattr(module, leaf) is not module._parameters[leaf]]


def snapshot(model):
    """A copy of everything in the state_dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_bits(a, b):
    """Equal dtype, shape and values bit for bit (so that NaN equals NaN, and 0.0 is not -0.0)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    raw = [t.detach().contiguous().view(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(*raw)


def assert_same(state, expected):
    """Two {name: tensor} hold the same names and the same bits."""
    assert set(state) == set(expected)
    for name in expected:
        assert same_bits(state[name], expected[name]), name


def set_bits(model, setting, *, seed=0, low=1, high=15):
    """Bits spread over [low, high], near integers (so that rounding is not in doubt), 15 and 1 among them."""
    source = torch.Generator().manual_seed(seed)
    for logits in named_logits(model).values():
        n = torch.randint(low, high + 1, logits.shape, generator=source).double()
        bits = n + 0.4 * torch.rand(logits.shape, generator=source) - 0.2
        bits[:1] = high
        bits[-1:] = low if len(bits) > 1 else high
        bits = bits.clamp(setting.min_bits, setting.max_bits)
        with torch.no_grad():
            logits.copy_(logits_for(bits, setting))


def scramble(model, seed=0):
    """Random values for every weight and every buffer of statistics, so that nothing is at its default."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in named_weights(model).values():
            p.copy_(torch.randn(p.shape, generator=source))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=source) + 0.5)
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(17)
    return model


def images(batch=4):
    return torch.randn(batch, 3, 6, 6, generator=torch.Generator().manual_seed(1))
