"""Data sets: every source is a function that returns a `Data` of loaders.

A new one takes a file here and a YAML in conf/dataset: a function that hands its images to `from_tensors`
(small ones, kept on the training device) or `from_datasets` (larger ones, streamed).
"""

from .base import Data, Loader, Loading
from .cifar10 import cifar10
from .cifar100 import cifar100
from .digits import digits
from .fashion_mnist import fashion_mnist
from .image_folder import image_folder
from .imagenet import imagenet
from .mnist import mnist
from .streams import StreamLoader, from_datasets
from .synthetic import synthetic
from .tensors import TensorLoader, from_tensors

__all__ = [
    "Data",
    "Loader",
    "Loading",
    "StreamLoader",
    "TensorLoader",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "from_datasets",
    "from_tensors",
    "image_folder",
    "imagenet",
    "mnist",
    "synthetic",
]
