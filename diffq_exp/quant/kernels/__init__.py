"""Noise and sizes in compiled loops, on a CPU and on a GPU."""
