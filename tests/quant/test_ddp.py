"""DistributedDataParallel made after the quantizer, two gloo processes on this machine."""

import torch
from helpers import warm

TRAIN = """
import sys
import torch.multiprocessing as mp
from helpers.quant_two_processes import train
mp.start_processes(train, args=sys.argv[1:], nprocs=2, start_method="fork")
"""


def test_bits_stay_equal_on_both_ranks(tmp_path):
    done = warm.run(["-c", TRAIN, str(tmp_path)], tmp_path, GLOO_SOCKET_IFNAME="lo")
    assert done.returncode == 0, done.stderr
    for kind in ("diffq", "rate"):
        first, second = (torch.load(tmp_path / f"{kind}{rank}.pt") for rank in (0, 1))
        for part in ("bits", "learned", "weights"):
            for name, value in first[part].items():
                assert torch.equal(value, second[part][name]), (kind, part, name)
        assert first["size"] == second["size"]
        assert not torch.equal(first["out"][0], second["out"][0])
        if kind == "diffq":
            assert all((value != 4).all() or name.startswith("norm") for name, value in first["bits"].items())
