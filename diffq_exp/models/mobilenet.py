"""torchvision's MobileNetV2, 2.2 M parameters for 10 classes, shrinking small images 8 times instead of 32.

On small images the stem and the first stage that halves keep the size, as in common CIFAR versions: of a
32 x 32 image 4 x 4 positions are left at the end, not one.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from .stem import SMALL, fit_channels

# (expansion, channels, blocks, stride) of the stages after the first two: table 2 of Sandler et al., 2018
LATER = [[6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]


def mobilenet_v2(num_classes: int, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """(B, in_channels, H, W) -> (B, num_classes); `image_size` up to 64 pixels is small."""
    from torchvision.models import MobileNetV2

    small = image_size <= SMALL
    stages = [[1, 16, 1, 1], [6, 24, 2, 1 if small else 2], *LATER]
    model = MobileNetV2(num_classes=num_classes, inverted_residual_setting=stages)
    if small:
        model.features[0][0].stride = (1, 1)
    fit_channels(model, in_channels)
    return cast(nn.Module, model)
