"""Networks: every entry is a function of (num_classes, in_channels, image_size) that returns an `nn.Module`.

All take normalised float images (B, in_channels, H, W) and give logits (B, num_classes). A new one takes a
file here and a YAML in conf/model. torchvision and timm are imported only when a network of theirs is made.
"""

from .digits_cnn import digits_cnn
from .from_timm import timm
from .from_torchvision import torchvision
from .gpt import gpt
from .mobilenet import mobilenet_v2
from .resnet18 import resnet18
from .resnet20 import resnet20
from .vit import vit_small
from .wide_resnet import wide_resnet28_10

__all__ = [
    "digits_cnn",
    "gpt",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "timm",
    "torchvision",
    "vit_small",
    "wide_resnet28_10",
]
