"""torchvision's ResNet-18, 11.2 M parameters, with the stem that is customary for CIFAR on small images.

A 7x7 convolution of stride 2 and a max pool would leave 8 x 8 of a CIFAR image before the first block; small
images get a 3x3 convolution of stride 1 and no pool instead.
"""

from __future__ import annotations

from torch import nn

from .stem import SMALL, fit_channels


def resnet18(num_classes: int, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """(B, in_channels, H, W) -> (B, num_classes); `image_size` up to 64 pixels is small."""
    from torchvision.models import resnet18 as build

    model: nn.Module = build(num_classes=num_classes)
    if image_size <= SMALL:
        model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # like torchvision's
        model.maxpool = nn.Identity()
    fit_channels(model, in_channels)
    return model
