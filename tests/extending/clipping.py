"""A quantizer of your own: learned clipping, low and high for each tensor; the last 30 % of training round.

python -m diffq_exp.train --config-dir . quantizer=clipping bits=4
"""

import torch
from torch import Tensor, nn

from diffq_exp.quant import Learned, Quantizer, Stored

SMALLEST = 1e-8  # range of a tensor, so that nothing is divided by zero


class ClippingQuantizer(Quantizer):
    """Levels 0 .. 2^bits - 1 of each tensor cover its range [low, high], whose ends are learned."""

    method = "clipping"  # written into the file

    def __init__(self, model: nn.Module, bits: float = 4, round_from: float = 0.7, **options):
        self.width, self.top = int(bits), 2 ** int(bits) - 1
        self.round_from, self.rounding = round_from, False
        super().__init__(model, **options)  # min_size, exclude, float16, detect_bound

    def learned_tensors(self, weight):
        """Two scalars beside each weight, of rates that the YAML sets: <name>_low and <name>_high."""
        low, high = torch.aminmax(weight.param.detach())
        return {
            suffix: Learned(end, {"lr": 1e-3, "weight_decay": 0.0})
            for suffix, end in (("_low", low), ("_high", high))
        }

    def at(self, progress: float) -> None:
        """Called before each step with the share of training that is done."""
        super().at(progress)
        self.rounding = progress >= self.round_from

    def training_value(self, item):
        """What a forward sees in place of a weight. The gradient of a clipped entry goes to that end."""
        low, high = self.ends(item)
        clipped = torch.minimum(torch.maximum(item.param, low), high)
        if not self.rounding:
            return clipped + (high - low) / self.top * (torch.rand_like(clipped) - 0.5)
        error = self.store(item, item.param.detach()).values() - clipped.detach()
        return clipped + error  # rounded; the gradient passes straight through

    def ends(self, item) -> tuple[Tensor, Tensor]:
        low, high = self.learned_tensor(item, "_low"), self.learned_tensor(item, "_high")
        return low, torch.maximum(high, low + SMALLEST)

    def store(self, item, weight):
        """What the file holds: levels, their width, and the range. "minmax" is the grid between two ends."""
        low, high = (end.detach() for end in self.ends(item))
        levels = ((weight.clamp(low, high) - low) / (high - low) * self.top).round()
        width = torch.full((1,), self.width, dtype=torch.uint8, device=weight.device)
        return Stored(
            grid="minmax", shape=tuple(weight.shape), dtype=weight.dtype, group_size=0,  # the tensor is one group
            levels=levels.to(torch.uint8 if self.width <= 8 else torch.int16).flatten(),
            bits=width, scales=torch.stack([low, high]),
        )  # fmt: skip

    def adopt(self, item, stored):
        """The reverse, for `quantizer.restore`: what was learned, from what was stored."""
        with torch.no_grad():
            self.learned_tensor(item, "_low").copy_(stored.scales[0])
            self.learned_tensor(item, "_high").copy_(stored.scales[1])

    def widths(self, item):
        return torch.tensor([float(self.width)])

    def size_bits(self, exact):
        return sum(self.width * item.entries + 64 for item in self.selection.quantized)  # 64: two float32 ends
