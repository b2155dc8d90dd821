"""The default network: five 3x3 convolutions, 0.28 M parameters, for images from 8 x 8 up.

Small enough to train on the digits in seconds on a CPU, large enough that its float32 megabyte is worth
compressing. The mean over positions makes it independent of the image size.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

LAYERS = [(32, 1), (64, 1), (64, 2), (128, 1), (128, 2)]  # (channels out, stride)


def digits_cnn(num_classes: int, in_channels: int = 3, image_size: int = 32) -> nn.Module:
    """(B, in_channels, H, W) -> (B, num_classes) for any H and W: `image_size` is not needed."""
    layers: dict[str, nn.Module] = {}
    channels = in_channels
    for place, (width, stride) in enumerate(LAYERS, 1):
        layers[f"conv{place}"] = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        layers[f"norm{place}"] = nn.BatchNorm2d(width)
        layers[f"relu{place}"] = nn.ReLU()
        channels = width
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(channels, num_classes)}
    return nn.Sequential(OrderedDict(layers))
