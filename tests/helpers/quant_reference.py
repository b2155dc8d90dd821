"""What the quantizers must compute, written a second time from the specification.

Nothing here imports diffq_exp: the stored values are numpy in float32, everything with a gradient is plain
autograd in float64, and exact sizes are Python integers. Agreement of the two is what the tests check.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch

SUFFIX = "_diffq"
MB_BITS = 8 * 2**20


@dataclass(frozen=True)
class Setting:
    """The arguments of a DiffQuantizer that enter formulas; min_size 0, to quantize small tensors."""

    group_size: int = 1
    min_bits: float = 2
    max_bits: float = 15
    param: str = "bits"
    noise: str = "gaussian"
    init_bits: float = 8
    extra_bits: float = 0
    float16: bool = False
    min_size: float = 0

    def kwargs(self):
        return asdict(self)


def group_index(numel, group_size):
    """The group of each entry, row-major: shape (numel,)."""
    return torch.arange(numel) // (group_size or max(numel, 1))


def group_entries(numel, group_size):
    """How many entries each group has, as a list of integers."""
    return torch.bincount(group_index(numel, group_size)).tolist()


def real_bits(logits, s):
    """b(l) in float64, differentiable."""
    sigma = torch.sigmoid(logits.double())
    if s.param == "bits":
        return s.min_bits + (s.max_bits - s.min_bits) * sigma
    s_min, s_max = 1 / (2**s.max_bits - 1), 1 / (2**s.min_bits - 1)
    return torch.log2(1 + 1 / torch.exp(sigma * math.log(s_min) + (1 - sigma) * math.log(s_max)))


def logits_for(bits, s):
    """The logits at which b(l) is `bits` (real numbers from min_bits to max_bits), float64."""
    bits = torch.as_tensor(bits, dtype=torch.float64)
    if s.param == "bits":
        sigma = (bits - s.min_bits) / (s.max_bits - s.min_bits)
    else:
        log_s = -torch.log(2**bits - 1)
        ln_min, ln_max = -math.log(2**s.max_bits - 1), -math.log(2**s.min_bits - 1)
        sigma = (log_s - ln_max) / (ln_min - ln_max)
    return torch.logit(sigma.clamp(1e-13, 1 - 1e-13))


def stored_bits(logits, s):
    """n of each group: a list of integers from 1 to 15."""
    bits = real_bits(logits.detach(), s).cpu().numpy() + s.extra_bits
    return [int(n) for n in np.clip(np.rint(bits), 1, 15)]


def rounded_to_levels(weight, steps):
    """levels / steps * (mx - mn) + mn in float32; steps is 2^n - 1 for each entry (N,), or one number."""
    flat = weight.detach().float().contiguous().numpy().reshape(-1)  # (N,) row-major
    steps = np.asarray(steps, dtype=np.float32)
    mn, mx = flat.min(), flat.max()
    if mn == mx:
        value = np.full_like(flat, mn)
    else:
        levels = np.rint((flat - mn) / (mx - mn) * steps)
        value = levels / steps * (mx - mn) + mn
    assert value.dtype == np.float32
    return torch.from_numpy(value).view(weight.shape).to(weight.dtype)


def stored_diffq(weight, logits, s):
    """The tensor an evaluation computes with."""
    n = np.array(stored_bits(logits, s))[group_index(weight.numel(), s.group_size).numpy()]
    return rounded_to_levels(weight, 2.0**n - 1)


def stored_uniform(weight, bits):
    return rounded_to_levels(weight, math.floor(2**bits) - 1)


def stored_lsq(weight, step, bits):
    """Signed levels times the step, in float32."""
    flat = weight.detach().float().contiguous().numpy().reshape(-1)
    step = np.float32(step.item())
    value = np.clip(np.rint(flat / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step
    return torch.from_numpy(value).view(weight.shape).to(weight.dtype)


def scale_of(weight):
    """max - min, where equal extremes share the gradient equally."""
    return weight[weight == weight.max()].mean() - weight[weight == weight.min()].mean()


def noise_step(logits, shape, s):
    """1 / (2^b - 1) for each entry, in the shape of the weight."""
    step = 1 / (2 ** real_bits(logits, s) - 1)
    return step[group_index(math.prod(shape), s.group_size)].view(shape)


def noisy_weight(weight, logits, eps, s):
    """w + scale * step(b) * eps in float64, differentiable in weight and logits."""
    weight = weight.double()
    return weight + scale_of(weight) * noise_step(logits, weight.shape, s) * eps


def recovered_noise(noisy, weight, logits, s):
    """The eps that a forward drew, from what it computed with."""
    weight = weight.detach().double()
    unit = scale_of(weight) * noise_step(logits.detach(), weight.shape, s)
    return (noisy.detach().double() - weight) / unit


def index_bits(span):
    """ceil(log2(1 + span)) without a logarithm: the bits that tell apart widths 0 to span."""
    width = 0
    while 2**width < 1 + span:
        width += 1
    return width


def named_weights(model, suffix=SUFFIX):
    """The parameters that are no logits, tied ones once."""
    return {name: p for name, p in model.named_parameters() if not name.endswith(suffix)}


def named_logits(model, suffix=SUFFIX):
    """{weight name: its logits}."""
    return {n.removesuffix(suffix): p for n, p in model.named_parameters() if n.endswith(suffix)}


def soft_size_mb(model, s, logits=None):
    """model_size() in float64; differentiable in `logits` ({name: tensor}), which default to the model's."""
    logits = named_logits(model) if logits is None else logits
    total = torch.zeros((), dtype=torch.float64)
    for name, p in named_weights(model).items():
        if name not in logits:
            total = total + p.numel() * (16 if s.float16 else 32)
            continue
        bits = s.extra_bits + real_bits(logits[name], s)  # (G,)
        entries = torch.tensor(group_entries(p.numel(), s.group_size), dtype=torch.float64)
        widest = int(np.rint(bits.detach().max().item()))
        total = total + (entries * bits).sum() + 64 + 8 + len(entries) * index_bits(widest - s.min_bits)
    return total / MB_BITS


def exact_size_bits(model, s):
    """model_size(exact=True) as an integer of bits."""
    logits, total = named_logits(model), 0
    for name, p in named_weights(model).items():
        if name not in logits:
            total += p.numel() * (16 if s.float16 else 32)
            continue
        n, entries = stored_bits(logits[name], s), group_entries(p.numel(), s.group_size)
        assert len(n) == len(entries)
        total += sum(a * b for a, b in zip(n, entries, strict=True)) + 64 + 8
        total += len(n) * index_bits(max(n) - s.min_bits)
    return total
