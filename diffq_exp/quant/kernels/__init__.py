"""Noisy weights and soft sizes in compiled loops, on a CPU and on a GPU; tensors that they cannot take go by torch."""
