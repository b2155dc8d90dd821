"""Networks: every entry is a function that returns an `nn.Module` and takes arguments from the data.

For images it takes (num_classes, in_channels, image_size); the network turns normalised (B, in_channels, H, W) into
logits (B, num_classes). For texts it takes (vocabulary, length), and the network turns tokens (B, T) into
logits (B, T, vocabulary). A new one takes a file here and a YAML in conf/model. torchvision, timm and transformers
are imported only when a network of theirs is made.
"""

from .digits_cnn import digits_cnn
from .from_timm import timm
from .from_torchvision import torchvision
from .from_transformers import transformers
from .gpt import gpt
from .lenet5 import lenet5
from .mobilenet import mobilenet_v2
from .resnet18 import resnet18
from .resnet20 import resnet20
from .vit import vit_small
from .wide_resnet import wide_resnet28_10

__all__ = [
    "digits_cnn",
    "gpt",
    "lenet5",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "timm",
    "torchvision",
    "transformers",
    "vit_small",
    "wide_resnet28_10",
]
