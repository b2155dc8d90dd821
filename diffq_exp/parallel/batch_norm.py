"""Batch norms whose statistics in training are those of the batches of all ranks together.

On a GPU it is torch's SyncBatchNorm. That refuses a CPU; there, the same by two sums over the ranks, each of which
sends its gradient back to all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(model: nn.Module) -> nn.Module:
    """The model with its batch norms exchanged; parameters, buffers and their names stay.

    Raises: ValueError naming a batch norm that does more than torch's own, which would be lost.
    """
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name, norm in norms:
        if type(norm) not in (*ON_CPU, nn.SyncBatchNorm):
            raise ValueError(f"sync_batch_norm=true: {name!r} is a {type(norm).__name__}, not a BatchNorm of torch")
    if all(param.device.type == "cpu" for param in model.parameters()):
        for _, norm in norms:
            norm.__class__ = ON_CPU.get(type(norm), type(norm))
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    for module in converted.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _OnGpu
    return converted


def compute_apart(model: nn.Module) -> None:
    """Let each rank take the statistics of its own batches, as after training, when a single rank works."""
    for norm in together_in(model):
        norm.together = False


def statistics_of(model: nn.Module) -> list[Tensor]:
    """The running statistics that batch norms of each rank's own batches move: (C,) each."""
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    own = [norm for norm in norms if not isinstance(norm, (Together, nn.SyncBatchNorm))]
    return [buffer for norm in own for buffer in (norm.running_mean, norm.running_var) if buffer is not None]


def together_in(model: nn.Module) -> list[Together]:
    """The batch norms over all ranks."""
    return [module for module in model.modules() if isinstance(module, Together)]


class Together(_BatchNorm):
    """A batch norm over all ranks, in training and as long as `together`. Inputs (B, C, ...), B of each rank.

    counted: whether this rank's batch is one of the examples; a spare one is not, and is normalised by itself.
    """

    together, counted = True, True

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.together):
            return _BatchNorm.forward(self, input)
        if self.counted:
            return self.forward_together(input)
        none = self.forward_together(input[:0])  # it takes part in the sums of the others, also in the backward
        return functional.batch_norm(input, None, None, self.weight, self.bias, True, 0.0, self.eps) + none.sum()

    def forward_together(self, input: Tensor) -> Tensor:
        axes = [axis for axis in range(input.dim()) if axis != 1]
        count = _sum_of_ranks(input.new_tensor([input.numel() / input.shape[1]], dtype=torch.float64))
        mean = (_sum_of_ranks(input.sum(axes, dtype=torch.float64)) / count).to(input.dtype)  # (C,)
        centred = input - _along(mean, input)
        var = _sum_of_ranks(centred.square().sum(axes, dtype=torch.float64)) / count
        if self.track_running_stats:
            self._keep(mean.detach(), (var * count / (count - 1)).to(mean.dtype).detach())
        scale = (var + self.eps).rsqrt().to(input.dtype)
        if not self.affine:
            return centred * _along(scale, input)
        scale = scale * self.weight
        return input * _along(scale, input) + _along(self.bias - mean * scale, input)

    @torch.no_grad()
    def _keep(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics as torch does."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var, share)


class _OnGpu(Together, nn.SyncBatchNorm):
    def forward_together(self, input: Tensor) -> Tensor:
        return nn.SyncBatchNorm.forward(self, input)


class _OnCpu1d(Together, nn.BatchNorm1d):
    pass


class _OnCpu2d(Together, nn.BatchNorm2d):
    pass


class _OnCpu3d(Together, nn.BatchNorm3d):
    pass


ON_CPU: dict[type[_BatchNorm], type[_BatchNorm]] = {
    nn.BatchNorm1d: _OnCpu1d,
    nn.BatchNorm2d: _OnCpu2d,
    nn.BatchNorm3d: _OnCpu3d,
}


def _along(values: Tensor, input: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to compute with (B, C, ...)."""
    return values.view(1, -1, *[1] * (input.dim() - 2))


def _sum_of_ranks(value: Tensor) -> Tensor:
    total: Tensor = _SumOfRanks.apply(value)  # type: ignore[no-untyped-call]
    return total


class _SumOfRanks(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
