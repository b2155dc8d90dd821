"""DiffQ in a loop of your own on several processes:

    torchrun --nproc-per-node 2 docs/recipes/torchrun_loop.py FOLDER --epochs 4

Given again, with more epochs say, it goes on from the last checkpoint in FOLDER, with its bits.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from diffq_exp import storage
from diffq_exp.quant import DiffQuantizer


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def digits() -> TensorDataset:
    images, targets = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images / 16).float(), torch.tensor(targets))


def store(quantizer: DiffQuantizer, path: Path, images: torch.Tensor) -> None:
    """Write the file, and see that a fresh network computes the same from it."""
    storage.save(quantizer, path)
    fresh = network().eval()
    storage.load(path, fresh)
    assert torch.equal(fresh(images), quantizer.model.cpu().eval()(images))
    print(quantizer)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(words)
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, device = dist.get_rank(), torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu")
    args.folder.mkdir(parents=True, exist_ok=True)
    checkpoint, begun = args.folder / "checkpoint.pt", 0

    torch.manual_seed(0)
    model = network().to(device)
    quantizer = DiffQuantizer(model, min_size=0, group_size=8)
    optimizer = torch.optim.AdamW(quantizer.base_parameters(), lr=1e-3)
    quantizer.setup_optimizer(optimizer, lr=1e-2)  # the bits: their own rate, no weight decay
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])  # weights and bits
        optimizer.load_state_dict(state["optimizer"])
        begun = state["epochs"]
    parallel = DistributedDataParallel(model)  # after the quantizer: the bits are kept equal too

    data = digits()
    order = DistributedSampler(data)
    loader = DataLoader(data, batch_size=64, sampler=order)
    for epoch in range(begun, args.epochs):
        order.set_epoch(epoch)
        torch.manual_seed(epoch * dist.get_world_size() + rank)  # each process its own noise, by epoch
        for number, (images, targets) in enumerate(loader):
            quantizer.at((epoch + number / len(loader)) / args.epochs)
            outputs = parallel(images.to(device))
            loss = cross_entropy(outputs, targets.to(device)) + 5.0 * quantizer.model_size()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").rename(checkpoint)

    quantizer.at(1.0)
    if rank == 0:
        store(quantizer, args.folder / "model.safetensors", data[:100][0])
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
