"""Kernels for weights in a CPU's memory, compiled by numba."""

from .noise import add_noise, pass_back
from .size import pass_back_bits, sum_bits

CHANNELS_LAST = False  # whether tensors of that memory format may stay as they are

__all__ = ["CHANNELS_LAST", "add_noise", "pass_back", "pass_back_bits", "sum_bits"]
