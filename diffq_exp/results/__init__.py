"""Finished runs: reading, writing and (to come) comparing their records. No torch here."""
