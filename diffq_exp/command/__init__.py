"""The command line: overrides -> one checked configuration for each run."""
