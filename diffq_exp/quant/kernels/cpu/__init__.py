"""Kernels for weights in a CPU's memory, compiled by numba."""

from .backend import CHANNELS_LAST, add_noise, add_noise_backward, sum_bits, sum_bits_backward

__all__ = ["CHANNELS_LAST", "add_noise", "add_noise_backward", "sum_bits", "sum_bits_backward"]
