"""DiffQ: a learned number of bits per group of weights, trained through pseudo quantization noise."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..stored.grids import Stored, store_minmax, widest_of
from ..stored.groups import group_count, sum_entries
from ..stored.packing import MAX_STORED_BITS
from ..stored.selection import Tensors
from .arguments import check_number
from .bits import PARAMS, logits_of, stored_bits
from .formula import exact_bits, soft_bits
from .kernels.autograd import add_noise_to_all
from .kernels.dispatch import by_kernels
from .learned import LearnedQuantizer
from .noise import NOISES
from .noisy_weights import add_noise


class DiffQuantizer(LearnedQuantizer):
    """Differentiable quantization (arXiv 2104.09987) of a model's weights.

    Attaches at creation; `model(x)` then trains with noise and evaluates with the stored weights. Add
    `penalty * quantizer.model_size()` to the loss.

    group_size: entries per learned width; 0: one width per tensor. min_bits < init_bits < max_bits <= 15:
    range and start of the widths. extra_bits: added to the widths in evaluation, files and sizes. param: "bits"
    or "noise", what is linear in the logit's sigmoid. noise: "gaussian" (variance 1/4 of a step squared, three
    times that of the other) or "uniform". suffix: of the logits' names. The rest: see Quantizer.
    """

    method = "diffq"

    def __init__(
        self,
        model: nn.Module,
        min_size: float = 0.01,
        float16: bool = False,
        group_size: int = 1,
        min_bits: float = 2,
        max_bits: float = 15,
        param: str = "bits",
        noise: str = "gaussian",
        init_bits: float = 8,
        extra_bits: float = 0,
        suffix: str = "_diffq",
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
    ) -> None:
        _check(group_size, min_bits, init_bits, max_bits, extra_bits, param=param, noise=noise)
        self.group_size = group_size
        self.min_bits, self.max_bits, self.init_bits = float(min_bits), float(max_bits), float(init_bits)
        self.extra_bits = float(extra_bits)
        self.noise = noise
        self._param = PARAMS[param](self.min_bits, self.max_bits)
        super().__init__(
            model, suffix, min_size=min_size, float16=float16, exclude=exclude, detect_bound=detect_bound
        )

    def _start(self, item: Tensors) -> Tensor:
        bits = torch.full((group_count(item.entries, self.group_size),), self.init_bits, dtype=torch.float64)
        dtype = torch.float64 if item.param.dtype == torch.float64 else torch.float32
        return logits_of(bits, self._param).to(dtype)

    def _training_values(self) -> Iterable[Tensor]:
        weights = [item.param for item in self.selection.quantized]
        logits = [self._learned(item) for item in self.selection.quantized]
        size, param, noise = self.group_size, self._param, self.noise
        if weights and by_kernels([*weights, *logits]):
            apart = self._holding  # checkpointed layers may go backward one by one
            return add_noise_to_all(weights, logits, size, param, noise, apart)
        return (add_noise(*pair, size, param, noise) for pair in zip(weights, logits, strict=True))

    def _stored_bits(self, item: Tensors) -> Tensor:
        return stored_bits(self._param.bits(self._learned(item).detach()), self.extra_bits)

    def _store(self, item: Tensors, weight: Tensor) -> Stored:
        bits = self._stored_bits(item)
        return store_minmax(weight, bits, self.group_size, widest_of(bits))

    def _quantized_bits(self, exact: bool) -> Tensor:
        items = self.selection.quantized
        if not exact:
            logits, entries = [self._learned(item) for item in items], [item.entries for item in items]
            return soft_bits(logits, entries, self.group_size, self._param, self.extra_bits, self.min_bits)
        sizes = (exact_bits(self._stored_bits(one), one.entries, self.group_size, self.min_bits) for one in items)
        return torch.stack(list(sizes)).sum()

    def _check_groups(self, name: str, stored: Stored) -> None:
        if stored.group_size != self.group_size:
            groups = (
                f"groups of {stored.group_size}, the quantizer has groups of {self.group_size} (0: whole tensors)"
            )
            raise ValueError(f"{name!r} is stored with {groups}")

    def _adopt(self, item: Tensors, stored: Stored) -> None:
        logits = self._learned(item)
        bits = (stored.bits.double() - self.extra_bits).clamp(self.min_bits, self.max_bits)
        with torch.no_grad():
            logits.copy_(logits_of(bits, self._param, margin=1e-4))

    def bits(self) -> dict[str, Tensor]:
        return {item.name: self._param.bits(self._learned(item).detach()) for item in self.selection.quantized}

    def mean_bits(self) -> dict[str, float]:
        entries = {item.name: item.entries for item in self.selection.quantized}
        return {
            name: float(sum_entries(widths, entries[name], self.group_size)) / entries[name]
            for name, widths in self.bits().items()
        }

    def setup_optimizer(self, optimizer: Optimizer, lr: float = 1e-3, **overrides: Any) -> None:
        """Add the logits to an existing optimizer, as a group of their own without weight decay.

        The usual way beside SGD is a second optimizer for them: `Adam([{"params": []}])`.
        Raises: RuntimeError when the optimizer holds the logits already.
        """
        self._add_group(optimizer, **{"lr": lr, "weight_decay": 0.0, **overrides})

    def check_unused(self) -> None:
        """Zero the logits' gradients of parameters that this step did not use (gradient None or all zero)."""
        for item in self.selection.quantized:
            grad = self._learned(item).grad
            if grad is None:
                continue
            weight_grad = item.param.grad
            if weight_grad is None:
                grad.zero_()
            else:
                grad.masked_fill_(~(weight_grad != 0).any(), 0.0)


LIMITS = {
    "min_bits": (1, MAX_STORED_BITS),
    "init_bits": (1, MAX_STORED_BITS),
    "max_bits": (1, MAX_STORED_BITS),
    "extra_bits": (0, sys.float_info.max),
}


def _check(
    group_size: int, min_bits: float, init_bits: float, max_bits: float, extra_bits: float, **names: str
) -> None:
    """Refuse arguments by name and value."""
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 0:
        raise ValueError(f"group_size must be a whole number >= 0 (0: one group per tensor), not {group_size!r}")
    values = {"min_bits": min_bits, "init_bits": init_bits, "max_bits": max_bits, "extra_bits": extra_bits}
    for name, value in values.items():
        check_number(name, value, *LIMITS[name])
    for low, high in (("min_bits", "init_bits"), ("init_bits", "max_bits")):
        if not values[low] < values[high]:
            raise ValueError(f"{low} {values[low]!r} is not below {high} {values[high]!r}")
    for name, table in (("param", PARAMS), ("noise", NOISES)):
        if names[name] not in table:
            raise ValueError(f"{name} must be one of {', '.join(table)}, not {names[name]!r}")
