"""DiffQ in the Trainer of Hugging Face: python docs/recipes/hugging_face_trainer.py FOLDER --epochs 4

Given again, with more epochs say, it goes on from the last checkpoint in FOLDER, with its bits.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from diffq_exp import storage
from diffq_exp.quant import DiffQuantizer, Quantizer


def network() -> ResNetForImageClassification:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))


def digits() -> list[dict[str, torch.Tensor]]:
    images, targets = (torch.tensor(values) for values in load_digits(return_X_y=True))
    pairs = zip(images.float().view(-1, 1, 8, 8) / 16, targets, strict=True)
    return [{"pixel_values": image, "labels": target} for image, target in pairs]


class QuantizingTrainer(Trainer):
    def __init__(self, *options, quantizer: Quantizer, penalty: float, **named):
        super().__init__(*options, **named)
        self.quantizer, self.penalty = quantizer, penalty
        self.model_accepts_loss_kwargs = False  # with accumulation, the whole loss is divided, the penalty too

    def compute_loss(self, model, inputs, return_outputs=False, **named):
        if model.training:
            torch.manual_seed(self.state.global_step)  # so that a stopped training ends as one that was not stopped
            self.quantizer.at(self.state.global_step / self.state.max_steps)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **named)
        if model.training:
            loss = loss + self.penalty * self.quantizer.model_size()
        return (loss, outputs) if return_outputs else loss


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(words)

    torch.manual_seed(0)
    model = network()
    quantizer = DiffQuantizer(model, min_size=0, group_size=8)  # before the Trainer: checkpoints hold bits
    optimizer = torch.optim.AdamW(quantizer.base_parameters(), lr=1e-3)
    quantizer.setup_optimizer(optimizer, lr=1e-2)  # the bits: their own rate, no weight decay
    trainer = QuantizingTrainer(
        model,
        TrainingArguments(
            str(args.folder),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=128,
            lr_scheduler_type="constant",
            save_strategy="epoch",
            report_to="none",
        ),
        train_dataset=digits(),
        optimizers=(optimizer, None),  # else the Trainer makes one that decays the bits
        quantizer=quantizer,
        penalty=5.0,
    )
    args.folder.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(args.folder)))

    quantizer.at(1.0)
    storage.save(quantizer, args.folder / "model.safetensors")
    fresh = network().eval()
    storage.load(args.folder / "model.safetensors", fresh)
    images = torch.stack([one["pixel_values"] for one in digits()[:100]])
    assert torch.equal(fresh(images).logits, model.cpu().eval()(images).logits)
    print(quantizer)


if __name__ == "__main__":
    main()
