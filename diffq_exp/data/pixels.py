"""Pixels in, pixels out: random crop and flip of a whole batch, normalisation, and channel statistics.

Crop and flip only move bytes, so both are a single gather over uint8 on the device of the images. The draws match
torchvision's RandomCrop(padding) followed by RandomHorizontalFlip, one per image; the padding is black, that
is, zero before normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def random_crop_flip(
    images: Tensor, padding: int, flip: bool, generator: torch.Generator, place: tuple[int, int] | None = None
) -> Tensor:
    """Crop and flip each image of (B, C, H, W) by draws of its own; the shape stays.

    The draws are made on the CPU and sent as one small tensor, without waiting for the device.
    place: where the images begin in their batch, and its length: what is drawn is that of the whole batch.
    """
    if not padding and not flip:
        return images
    first, count = place or (0, len(images))
    corners = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)  # top, left
    mirrored = torch.randint(0, 2, (1, count), generator=generator) * flip
    draws = torch.cat([corners, mirrored])[:, first : first + len(images)].to(images.device, non_blocking=True)
    return crop_flip(images, padding, draws[0], draws[1], draws[2].bool())


def crop_flip(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Pad (B, C, H, W) with zeros, cut an H x W window at (top, left) of each image, mirror some.

    `top` and `left` are (B,) int64 in 0..2 * padding, `mirrored` is (B,) bool.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)  # (B, C, H + 2p, W + 2p)
    across = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(mirrored[:, None], across.flip(0), across)  # (B, W)
    rows = top[:, None] + torch.arange(height, device=images.device)  # (B, H)
    offsets = rows[:, :, None] * padded.shape[3] + columns[:, None, :]  # (B, H, W) within a padded plane
    index = offsets.view(count, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)


class Normalise:
    """uint8 (B, C, H, W) -> float32 (pixel / 255 - mean) / std, as one multiply and one add."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> None:
        mean64 = torch.tensor(list(mean), dtype=torch.float64).view(-1, 1, 1)
        std64 = torch.tensor(list(std), dtype=torch.float64).view(-1, 1, 1)
        self.scale = (1 / (255 * std64)).float().to(device)  # (C, 1, 1)
        self.shift = (-mean64 / std64).float().to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self.scale).add_(self.shift)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 (N, C, H, W), for pixels scaled to 0..1.

    Exact: taken from the counts of the 256 values, in float64, so that no order of summation shows. A channel
    that is constant gets a deviation of 1, which leaves it at zero after normalisation.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.cpu().unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (share * values).sum()
        std = (share * (values - mean) ** 2).sum().sqrt()
        means.append(mean.item())
        stds.append(std.item() if std > 0 else 1.0)
    return tuple(means), tuple(stds)


def checked_statistics(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std as tuples; ValueError unless each has a number per channel and std is above zero."""
    mean, std = tuple(float(m) for m in mean), tuple(float(s) for s in std)
    if not len(mean) == len(std) == channels:
        raise ValueError(f"mean={mean} and std={std} need a number for each of {channels} channels")
    if min(std) <= 0:
        raise ValueError(f"std={std} has to be above zero in every channel")
    return mean, std
