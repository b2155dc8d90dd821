"""Finished runs: their records, and the reports that compare them. No torch here."""
