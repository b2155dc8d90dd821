"""The parts of scripts/benchmark.py: each gives rows for the table and data for the JSON."""
