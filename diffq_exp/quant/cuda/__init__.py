"""Kernels for weights in a GPU's memory, compiled by Triton."""

from .noise import AddNoise
from .size import SumBits

__all__ = ["AddNoise", "SumBits"]
