"""Noisy weights and soft sizes in compiled loops, on a CPU and on a GPU; other tensors go by torch."""
