"""Wide ResNet 28-10 (Zagoruyko and Komodakis, 2016): 28 layers, ten times as wide, 36.5 M parameters.

Norm and ReLU come before each convolution. The first norm and ReLU of a block that changes shape also feed
its 1x1 shortcut, as in the authors' code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else None

    def forward(self, images: Tensor) -> Tensor:
        active = F.relu(self.norm1(images))
        out: Tensor = self.conv1(active)
        out = self.conv2(self.dropout(F.relu(self.norm2(out))))
        return out + (images if self.shortcut is None else self.shortcut(active))


def wide_resnet28_10(
    num_classes: int, in_channels: int = 3, image_size: int = 32, dropout: float = 0.0
) -> nn.Module:
    """(B, in_channels, H, W) -> (B, num_classes) for any H and W: `image_size` is not needed."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)]
    channels = 16
    for width, stride in ((160, 1), (320, 2), (640, 2)):
        for position in range(4):
            layers.append(PreActBlock(channels, width, stride if position == 0 else 1, dropout))
            channels = width
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(channels, num_classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
