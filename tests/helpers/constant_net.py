"""A user's own network, in a module that nothing else imports: it has constants, made early and late."""

import torch
from torch import nn

SCALE = torch.tensor([2.0])
LATER: dict[str, torch.Tensor] = {}


class ConstantNet(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, image_size: int, layers: int = 1) -> None:
        super().__init__()
        LATER.setdefault("ones", torch.ones(num_classes))
        self.head = nn.Linear(in_channels * image_size**2, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1)) * SCALE * LATER["ones"]
