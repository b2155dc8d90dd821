"""DistributedDataParallel made after the quantizer, two gloo processes on this machine."""

import torch
import torch.multiprocessing as mp
from helpers.quant_two_processes import train


def test_bits_stay_equal_on_both_ranks(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(train, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for kind in ("bits", "logits", "weights"):
        for name, value in first[kind].items():
            assert torch.equal(value, second[kind][name]), (kind, name)
    for name, value in first["bits"].items():
        assert (value != 4).all() or name.startswith("norm"), name
    assert first["size"] == second["size"]
    assert not torch.equal(first["out"][0], second["out"][0])
