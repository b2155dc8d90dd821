"""Tasks: a loss to train and scores to report."""
