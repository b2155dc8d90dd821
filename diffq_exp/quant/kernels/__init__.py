"""Noisy weights and soft sizes in compiled loops, on a CPU and on a GPU; what they cannot take goes by torch."""
