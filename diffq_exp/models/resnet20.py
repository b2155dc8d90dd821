"""ResNet-20 for CIFAR (He et al., 2016, section 4.2): stages of 16, 32 and 64 channels, 0.27 M parameters.

Where a stage halves the image, the shortcut is the paper's option A: every second pixel, with zeros for the
new channels, and no parameters. DiffQ's authors report this one; the 1x1 convolutions of option B would be
more weights to quantize, and another network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - channels

    def forward(self, images: Tensor) -> Tensor:
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(images)))))
        return F.relu(out + self.shortcut(images))

    def shortcut(self, images: Tensor) -> Tensor:
        if not self.new_channels:
            return images
        before = self.new_channels // 2  # zeros on both sides of the channels there are
        kept = images[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, before, self.new_channels - before))


def resnet20(num_classes: int, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """(B, in_channels, H, W) -> (B, num_classes) for any H and W: `image_size` is not needed."""
    stem = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for position in range(3):
            layers.append(Block(channels, width, stride if position == 0 else 1))
            channels = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)  # He et al., 2015
    return model
