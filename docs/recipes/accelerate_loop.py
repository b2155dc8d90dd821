"""DiffQ in a loop of your own with accelerate: python docs/recipes/accelerate_loop.py FOLDER --epochs 4

`accelerate launch docs/recipes/accelerate_loop.py FOLDER` takes all GPUs. Given again, with more epochs say, it
goes on from the last checkpoint in FOLDER, with its bits.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from diffq_exp import storage
from diffq_exp.quant import DiffQuantizer


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def digits() -> TensorDataset:
    images, targets = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images / 16).float(), torch.tensor(targets))


class Progress:
    """The number of epochs that are done, as part of the checkpoint."""

    def __init__(self):
        self.epochs = 0

    def state_dict(self):
        return {"epochs": self.epochs}

    def load_state_dict(self, state):
        self.epochs = state["epochs"]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(words)

    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=0)  # which follows from the epoch
    accelerator, progress, checkpoint = Accelerator(dataloader_config=order), Progress(), args.folder / "checkpoint"
    set_seed(0)
    network_alone = network()
    quantizer = DiffQuantizer(network_alone, min_size=0, group_size=8)  # before prepare(), which may wrap it
    optimizer = torch.optim.AdamW(quantizer.base_parameters(), lr=1e-3)
    quantizer.setup_optimizer(optimizer, lr=1e-2)  # the bits: their own rate, no weight decay
    loader = DataLoader(digits(), batch_size=128, shuffle=True)
    model, optimizer, loader = accelerator.prepare(network_alone, optimizer, loader)
    accelerator.register_for_checkpointing(progress)
    if checkpoint.is_dir():
        accelerator.load_state(str(checkpoint))

    model.train()
    while progress.epochs < args.epochs:
        set_seed(progress.epochs, device_specific=True)  # each process its own noise, which follows from the epoch
        loader.set_epoch(progress.epochs)
        for number, (images, targets) in enumerate(loader):
            quantizer.at((progress.epochs + number / len(loader)) / args.epochs)
            loss = cross_entropy(model(images), targets) + 5.0 * quantizer.model_size()
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        progress.epochs += 1
        accelerator.save_state(str(checkpoint))

    quantizer.at(1.0)
    if accelerator.is_main_process:
        storage.save(quantizer, args.folder / "model.safetensors")
        fresh = network().eval()
        storage.load(args.folder / "model.safetensors", fresh)
        images = digits()[:100][0]
        assert torch.equal(fresh(images), network_alone.cpu().eval()(images))
        print(quantizer)
    accelerator.end_training()


if __name__ == "__main__":
    main()
