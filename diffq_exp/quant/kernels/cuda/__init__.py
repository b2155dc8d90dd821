"""Kernels for weights in a GPU's memory, compiled by Triton."""

from .backend import CHANNELS_LAST, add_noise, add_noise_backward, sum_bits, sum_bits_backward

__all__ = ["CHANNELS_LAST", "add_noise", "add_noise_backward", "sum_bits", "sum_bits_backward"]
