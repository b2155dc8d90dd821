"""A sweep: a list of runs, of which those that are missing are done."""
