"""The unit of all sizes."""

MB = 2**20  # bytes, as in the paper
