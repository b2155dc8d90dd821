"""ViT-S (Touvron et al., 2021) on the VisionTransformer of torchvision: 384 wide, 12 layers, 6 heads, 21 M.

Patches of 4 pixels on small images, so that a 32 x 32 image gives 64 tokens, and of 16 on larger ones.
"""

from __future__ import annotations

from torch import nn

from .stem import SMALL, fit_channels


def vit_small(num_classes: int, in_channels: int = 3, image_size: int = 32, dropout: float = 0.0) -> nn.Module:
    """(B, in_channels, image_size, image_size) -> (B, num_classes); ValueError if patches do not fit."""
    from torchvision.models import VisionTransformer

    patch_size = 4 if image_size <= SMALL else 16
    if image_size % patch_size:
        raise ValueError(f"vit_small: image_size={image_size} is no multiple of {patch_size}, the side of a patch")
    model: nn.Module = VisionTransformer(
        image_size, patch_size, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536, dropout=dropout,
        num_classes=num_classes,
    )  # fmt: skip
    fit_channels(model, in_channels)
    return model
