"""Data sets: every source is a function that returns a `Data` of loaders.

A new one takes a file here and a YAML in conf/dataset. A function of images hands them to `from_tensors` (small
sets, kept on the training device) or `from_datasets` (larger ones, streamed); one of text makes a `TextData` of
tokens; for anything else, a class with the three members of `Loader` is enough.
"""

from .base import Data, ImageData, Loader, Loading
from .cifar10 import cifar10
from .cifar100 import cifar100
from .digits import digits
from .fashion_mnist import fashion_mnist
from .huggingface import huggingface, huggingface_text
from .image_folder import image_folder
from .imagenet import imagenet
from .mnist import mnist
from .shares import Share, share_of
from .streams import StreamLoader, from_datasets
from .synthetic import synthetic
from .tensors import TensorLoader, from_tensors
from .text import TextData, WindowLoader, Windows, text
from .webdataset import webdataset
from .wikitext103 import wikitext103

__all__ = [
    "Data",
    "ImageData",
    "Loader",
    "Loading",
    "Share",
    "StreamLoader",
    "TensorLoader",
    "TextData",
    "WindowLoader",
    "Windows",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "from_datasets",
    "from_tensors",
    "huggingface",
    "huggingface_text",
    "image_folder",
    "imagenet",
    "mnist",
    "share_of",
    "synthetic",
    "text",
    "webdataset",
    "wikitext103",
]
