"""Pseudo quantization noise: objects that draw eps, the noise of a weight in units of its quantization step.

Shipped are the gaussian N(0, 1)/2, with three times the variance of the other (1/4 against 1/12), as published; the
uniform U(-1/2, 1/2); and none. A noise of your own is a class with a `draw`, given as an object or, in a
configuration, by `noise={_target_: package.Class}`.

Here noise comes from torch, for any device and under torch.compile; kernels/ has compiled loops for the shipped
kinds. Either follows from torch's global generator, so that a seed, or a checkpoint of its state, gives the same
noise again. Ranks of a distributed run have noise of their own, even where they were seeded alike; under
torch.compile they are to be seeded differently.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Noise(ABC):
    """A kind of noise."""

    @abstractmethod
    def draw(self, weight: Tensor, step: Tensor) -> Tensor:
        """eps, of the shape, dtype and device of `weight`; a training forward sees weight + step * eps.

        step: the quantization step at each entry, of the shape of `weight`, in its unit; 0 in a constant tensor.
        Gradients take eps for a constant. Random numbers come from torch's global generator: `torch.rand_like`.
        """


@dataclass(frozen=True)
class Gaussian(Noise):
    """N(0, 1)/2."""

    def draw(self, weight: Tensor, step: Tensor) -> Tensor:
        return torch.randn(weight.shape, dtype=weight.dtype, device=weight.device).mul_(0.5)


@dataclass(frozen=True)
class Uniform(Noise):
    """U(-1/2, 1/2), the error of rounding where it is independent of the weight."""

    def draw(self, weight: Tensor, step: Tensor) -> Tensor:
        return torch.rand(weight.shape, dtype=weight.dtype, device=weight.device).sub_(0.5)


@dataclass(frozen=True)
class NoNoise(Noise):
    """Zeros: the network trains on its float weights, and bits learn from the penalty alone."""

    def draw(self, weight: Tensor, step: Tensor) -> Tensor:
        return torch.zeros(weight.shape, dtype=weight.dtype, device=weight.device)


NOISES: dict[str, type[Noise]] = {"gaussian": Gaussian, "uniform": Uniform, "none": NoNoise}


def noise_of(noise: str | Noise) -> Noise:
    """A noise by its name, or the object itself. Raises: ValueError that lists the names."""
    if isinstance(noise, Noise):
        return noise
    if noise not in NOISES:
        raise ValueError(f"noise must be one of {', '.join(NOISES)}, or a Noise, not {noise!r}")
    return NOISES[noise]()


def draw(noise: Noise, weight: Tensor, step: Tensor) -> Tensor:
    """eps of a weight in this process; see Noise.draw. Raises: ValueError for an eps of another shape."""
    eps = _drawn(noise, weight, step)
    if eps.shape != weight.shape:
        raise ValueError(
            f"{type(noise).__name__} gave a tensor {tuple(eps.shape)} for a weight {tuple(weight.shape)}"
        )
    return eps


def _drawn(noise: Noise, weight: Tensor, step: Tensor) -> Tensor:
    if torch.compiler.is_compiling() or rank() == 0:
        return noise.draw(weight, step)
    seed = (new_key() + rank() * 0x9E3779B97F4A7C15) % 2**63
    with torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []):
        torch.manual_seed(seed)
        return noise.draw(weight, step)


def rank() -> int:
    """That of this process in a distributed run, else 0."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def new_key() -> int:
    """A whole number below 2^63 - 1 that noise can follow from; advances torch's global generator."""
    return int(torch.randint(2**63 - 1, (1,), device="cpu").numpy()[0])
