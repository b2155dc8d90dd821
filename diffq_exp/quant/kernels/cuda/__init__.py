"""Kernels for weights in a GPU's memory, compiled by Triton."""

from .noise import add_noise, pass_back
from .size import pass_back_bits, sum_bits

CHANNELS_LAST = True  # whether tensors of that memory format may stay as they are

__all__ = ["CHANNELS_LAST", "add_noise", "pass_back", "pass_back_bits", "sum_bits"]
