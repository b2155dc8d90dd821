"""Runs and reports in Weights & Biases."""
