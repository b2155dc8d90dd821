"""What each of two processes does in test_ddp: train with data and noise of its own."""

import torch
import torch.distributed as dist
from helpers.quant_models import Net
from torch.nn.parallel import DistributedDataParallel

from diffq_exp.quant import DiffQuantizer, RateQuantizer


def train(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        for kind in ("diffq", "rate"):
            torch.save(_trained(kind, rank), f"{folder}/{kind}{rank}.pt")
    finally:
        dist.destroy_process_group()


def _trained(kind, rank):
    torch.manual_seed(rank)  # other weights, other noise
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if kind == "diffq":
        quantizer = DiffQuantizer(model, min_size=0, group_size=4, init_bits=4)
    else:
        quantizer = RateQuantizer(model, round_from=0.5)
    quantizer.setup_optimizer(optimizer, lr=0.1)
    parallel = DistributedDataParallel(model)
    outs, x = [], torch.randn(4, 3, 6, 6) + rank
    for step in range(4):
        quantizer.at(step / 4)
        optimizer.zero_grad()
        out = parallel(x)
        (out.square().mean() + 100 * quantizer.model_size()).backward()
        optimizer.step()
        outs.append(out.detach())
    return {
        "bits": {name: value.detach() for name, value in quantizer.bits().items()},
        "learned": {name: p.detach() for name, p in quantizer.learned().items()},
        "weights": {name: p.detach() for name, p in model.named_parameters()},
        "size": quantizer.true_model_size(),
        "eval": parallel.eval()(torch.ones(2, 3, 6, 6)).detach(),
        "out": outs,
    }
