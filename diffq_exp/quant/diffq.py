"""DiffQ: a learned number of bits per group of weights, trained through pseudo quantization noise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..stored.grids import Stored, store_minmax, widest_of
from ..stored.groups import group_count, sum_entries
from ..stored.packing import MAX_STORED_BITS
from ..stored.selection import Tensors
from .arguments import check_choice, check_number, check_suffix
from .bits import PARAMS, logits_of, stored_bits
from .coded_widths import coded_bits_of_widths
from .formula import exact_bits, soft_bits
from .kernels.autograd import add_noise_to_all
from .kernels.cells import CELLS_OF
from .kernels.dispatch import by_kernels
from .learned import Learned
from .noise import Noise, noise_of
from .noisy_weights import add_fading_noise, add_noise
from .quantizer import Quantizer


class DiffQuantizer(Quantizer):
    """Differentiable quantization (arXiv 2104.09987) of a model's weights.

    Attaches at creation; `model(x)` then trains with noise and evaluates with the stored weights. Add
    `penalty * quantizer.model_size()` to the loss.

    group_size: entries per learned width; 0: one width per tensor. min_bits < init_bits < max_bits <= 15:
    range and start of the widths; below one bit, the weights of a group fade to one value. extra_bits: added to the
    widths in evaluation, files and sizes. param: which is linear in the logit's sigmoid, "bits" or "noise" (log of
    the step). noise: "gaussian" (variance 1/4 of a step squared, three times that of the other), "uniform", "none",
    or a Noise. suffix: of the logits' names. The rest: see Quantizer.
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
        noise: str | Noise = "gaussian",
        init_bits: float = 8,
        extra_bits: float = 0,
        suffix: str = "_diffq",
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
    ) -> None:
        _check(group_size, min_bits, init_bits, max_bits, extra_bits, param)
        self.group_size = group_size
        self.min_bits, self.max_bits, self.init_bits = float(min_bits), float(max_bits), float(init_bits)
        self.extra_bits = float(extra_bits)
        self.noise = noise_of(noise)
        self._param = PARAMS[param](self.min_bits, self.max_bits)
        check_suffix(suffix)
        self.suffix = suffix
        super().__init__(model, min_size, float16, exclude, detect_bound)

    def learned_tensors(self, weight: Tensors) -> Mapping[str, Learned]:
        """The logits, (G,), at the rate 1e-3 and without weight decay unless `setup_optimizer` has others."""
        bits = torch.full((group_count(weight.entries, self.group_size),), self.init_bits, dtype=torch.float64)
        dtype = torch.float64 if weight.param.dtype == torch.float64 else torch.float32
        return {self.suffix: Learned(logits_of(bits, self._param).to(dtype), {"lr": 1e-3, "weight_decay": 0.0})}

    def _logits(self, item: Tensors) -> nn.Parameter:
        return self.learned_tensor(item, self.suffix)

    def training_values(self) -> Iterable[Tensor]:
        weights = [item.param for item in self.selection.quantized]
        logits = [self._logits(item) for item in self.selection.quantized]
        size, param, noise = self.group_size, self._param, self.noise
        if weights and not self.fading and type(noise) in CELLS_OF and by_kernels([*weights, *logits]):
            apart = self.attachment.holding  # checkpointed layers may go backward one by one
            return add_noise_to_all(weights, logits, size, param, type(noise), apart)
        noisy = add_fading_noise if self.fading else add_noise
        return (noisy(*pair, size, param, noise) for pair in zip(weights, logits, strict=True))

    @property
    def fading(self) -> bool:
        """Whether a group may have less than one bit."""
        return self.min_bits < 1

    def _stored_bits(self, item: Tensors) -> Tensor:
        return stored_bits(self.widths(item).detach(), self.extra_bits, least=0 if self.fading else 1)

    def store(self, item: Tensors, weight: Tensor) -> Stored:
        bits = self._stored_bits(item)
        return store_minmax(weight, bits, self.group_size, widest_of(bits))

    def size_bits(self, exact: bool) -> Tensor:
        items = self.selection.quantized
        if not exact:
            logits, entries = [self._logits(item) for item in items], [item.entries for item in items]
            return soft_bits(logits, entries, self.group_size, self._param, self.extra_bits, self.min_bits)
        sizes = (
            exact_bits(self._stored_bits(item), item.entries, self.group_size, self.min_bits) for item in items
        )
        return torch.stack(list(sizes)).sum()

    def coded_bits(self) -> Tensor:
        items = self.selection.quantized
        widths = (self.widths(item) + self.extra_bits for item in items)
        return torch.stack(
            [
                coded_bits_of_widths(item.param, bits, self.store(item, item.param))
                for item, bits in zip(items, widths, strict=True)
            ]
        ).sum()

    @torch.no_grad()
    def coarsen(self, bits: float) -> None:
        """Lowers all widths."""
        for item in self.selection.quantized:
            widths = (self.widths(item).double() - bits).clamp(self.min_bits, self.max_bits)
            self._logits(item).copy_(logits_of(widths, self._param, margin=1e-4))

    def check_stored(self, item: Tensors, stored: Stored) -> None:
        if stored.group_size != self.group_size:
            groups = (
                f"groups of {stored.group_size}, the quantizer has groups of {self.group_size} (0: whole tensors)"
            )
            raise ValueError(f"{item.name!r} is stored with {groups}")

    def adopt(self, item: Tensors, stored: Stored) -> None:
        logits = self._logits(item)
        bits = (stored.bits.double() - self.extra_bits).clamp(self.min_bits, self.max_bits)
        with torch.no_grad():
            logits.copy_(logits_of(bits, self._param, margin=1e-4))

    def widths(self, item: Tensors) -> Tensor:
        return self._param.bits(self._logits(item))

    def mean_bits(self) -> dict[str, float]:
        entries = {item.name: item.entries for item in self.selection.quantized}
        return {
            name: float(sum_entries(widths, entries[name], self.group_size)) / entries[name]
            for name, widths in self.bits().items()
        }

    def check_unused(self) -> None:
        """Zero the logits' gradients of parameters that this step did not use (gradient None or all zero)."""
        for item in self.selection.quantized:
            grad = self._logits(item).grad
            if grad is None:
                continue
            weight_grad = item.param.grad
            if weight_grad is None:
                grad.zero_()
            else:
                grad.masked_fill_(~(weight_grad != 0).any(), 0.0)


LIMITS = {
    "min_bits": (0, MAX_STORED_BITS),
    "init_bits": (1, MAX_STORED_BITS),
    "max_bits": (1, MAX_STORED_BITS),
    "extra_bits": (0, sys.float_info.max),
}


def _check(
    group_size: int, min_bits: float, init_bits: float, max_bits: float, extra_bits: float, param: str
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
    if min_bits == 0 and param == "noise":
        raise ValueError("min_bits must be above 0 with param 'noise', which learns a step: 0 bits have none")
    check_choice("param", param, tuple(PARAMS))
