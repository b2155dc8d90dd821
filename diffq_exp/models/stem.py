"""Fit a network made for three colours and 224 pixels to other images, and see that it takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .rebuilding import is_rebuilding

SMALL = 64  # pixels: up to here, a stem that shrinks the image fourfold leaves too little of it


def fit_channels(model: nn.Module, in_channels: int, keep_weights: bool = False) -> None:
    """Give the first convolution `in_channels` inputs, if it has others, with weights drawn anew.

    The draw keeps the scale of the output. With `keep_weights`, for trained ones, each input gets their mean
    instead, scaled so that a grey image gives the same output as in colour.
    """
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == in_channels:
        return
    old, ratio = first.weight.detach(), first.in_channels / in_channels
    if keep_weights:
        new = old.mean(1, keepdim=True).repeat(1, in_channels, 1, 1) * ratio
    else:
        new = old.new_empty(len(old), in_channels, *old.shape[2:]).normal_(std=old.std().item() * ratio**0.5)
    first.in_channels, first.weight = in_channels, nn.Parameter(new)


def tried(model: nn.Module, name: str, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The model, once it has turned a black image into logits; ValueError with the reason if it cannot.

    In evaluation mode and without gradients: neither buffers nor random state change. Not tried while rebuilding.
    """
    if is_rebuilding():
        return model
    image = torch.zeros(1, in_channels, image_size, image_size)
    subject = f"{name} does not take images of {in_channels} x {image_size} x {image_size}"
    with _failing_as(subject), _evaluating(model):
        logits = model(image)
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_classes):
        given = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{name} gives {given} for one image, not logits of shape (1, {num_classes})")
    return model


@contextmanager
def _failing_as(subject: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a network of a library can raise any exception
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{subject} ({reason}); choose another dataset.image_size or model") from error


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
