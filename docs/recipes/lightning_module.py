"""DiffQ in Lightning: python docs/recipes/lightning_module.py FOLDER --epochs 4

Given again, with more epochs say, it goes on from the last checkpoint in FOLDER, with its bits.
"""

import argparse
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
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


class Digits(lightning.LightningModule):
    def __init__(self, penalty: float = 5.0):
        super().__init__()
        self.save_hyperparameters()
        self.network = network()
        # Attached here, the bits are parameters of the module from the beginning, and part of every checkpoint.
        self.quantizer = DiffQuantizer(self.network, min_size=0, group_size=8)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.quantizer.base_parameters(self), lr=1e-3)
        self.quantizer.setup_optimizer(optimizer, lr=1e-2)  # the bits: their own rate, no weight decay
        return optimizer

    # Order and noise follow from the numbers of epoch and step, so that a stopped training ends as any other.
    def train_dataloader(self):
        data, drawn = digits(), torch.Generator().manual_seed(self.current_epoch)
        return DataLoader(data, batch_size=128, sampler=torch.randperm(len(data), generator=drawn).tolist())

    def training_step(self, batch, _):
        torch.manual_seed(self.global_step)
        self.quantizer.at(self.global_step / self.trainer.estimated_stepping_batches)
        images, targets = batch
        loss = cross_entropy(self.network(images), targets)  # called: network.forward(images) would see no noise
        size = self.quantizer.model_size()
        self.log("size_mb", size, prog_bar=True)
        return loss + self.hparams.penalty * size


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(words)

    torch.manual_seed(0)
    module, last = Digits(), args.folder / "last.ckpt"
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        callbacks=[ModelCheckpoint(args.folder, save_last=True)],
        reload_dataloaders_every_n_epochs=1,
        logger=False,
    )
    trainer.fit(module, ckpt_path=last if last.is_file() else None)

    module.quantizer.at(1.0)
    storage.save(module.quantizer, args.folder / "model.safetensors")
    fresh = network().eval()
    storage.load(args.folder / "model.safetensors", fresh)
    images = digits()[:100][0]
    assert torch.equal(fresh(images), module.network.eval()(images))
    print(module.quantizer)


if __name__ == "__main__":
    main()
