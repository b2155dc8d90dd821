"""Kernels for weights in a CPU's memory, compiled by numba."""

from .noise import AddNoise
from .size import SumBits

__all__ = ["AddNoise", "SumBits"]
