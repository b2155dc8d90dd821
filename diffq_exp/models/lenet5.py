"""LeNet-5 as compression papers use it: two convolutions of 5x5, two linear layers, 431,080 parameters."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

SMALLEST = 16  # pixels to a side


def lenet5(num_classes: int, in_channels: int = 1, image_size: int = 28) -> nn.Module:
    """(B, in_channels, image_size, image_size) -> (B, num_classes): 20 and 50 channels, 500 hidden units
    (LeCun et al. 1998; the widths of Caffe's example, which Deep Compression and its successors take).

    Raises: ValueError for images of less than 16 x 16 pixels.
    """
    if image_size < SMALLEST:
        raise ValueError(f"images of {image_size} x {image_size}; lenet5 needs {SMALLEST} x {SMALLEST}")
    side = ((image_size - 4) // 2 - 4) // 2
    layers: list[tuple[str, nn.Module]] = [
        ("conv1", nn.Conv2d(in_channels, 20, 5)),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(20, 50, 5)),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("linear1", nn.Linear(50 * side * side, 500)),
        ("relu", nn.ReLU()),
        ("linear2", nn.Linear(500, num_classes)),
    ]
    return nn.Sequential(OrderedDict(layers))
