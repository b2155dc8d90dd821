"""Only `make test-slurm` runs these tests: they need root and start the daemons of a Slurm."""

import os

collect_ignore = [] if os.environ.get("TEST_SLURM") else ["test_slurm.py"]
