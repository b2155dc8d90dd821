"""Any network of timm by its name, with its weights if wanted. timm is an optional extra."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from torch import nn

from ..common.names import hint
from ..common.packages import install_command
from .stem import tried


def timm(
    name: str, pretrained: bool = False, *, num_classes: int, in_channels: int = 3, image_size: int = 224
) -> nn.Module:
    """(B, in_channels, image_size, image_size) -> (B, num_classes).

    timm itself fits weights to `num_classes` (a fresh head), `in_channels` and `image_size`. A name may carry
    a tag of weights (`vit_tiny_patch16_224.augreg_in21k`).
    ValueError for an unknown name, a size that the network cannot take, or where timm is not installed.
    """
    library = _library()
    if ":" in name or "/" in name:  # what is there could change, and stored weights would need it again
        raise ValueError(
            f"timm's '{name}' points to a hub or folder: give the network's own name, and a folder by init_from=DIR"
        )
    if not library.is_model(name):
        raise ValueError(f"timm has no model '{name}'{hint(name, library.list_models())}")
    try:
        options = _options(library, name, num_classes, in_channels, image_size)
        model: nn.Module = library.create_model(name, pretrained=pretrained, **options)
    except (OSError, RuntimeError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"timm's {name} cannot be made for image_size={image_size}: {reason}") from error
    return tried(model, f"timm's {name}", num_classes, in_channels, image_size)


def _library() -> ModuleType:
    try:
        return import_module("timm")
    except ImportError as error:
        raise ValueError(f"model=timm needs the package timm: {install_command('timm')}") from error


def _options(library: ModuleType, name: str, num_classes: int, in_channels: int, image_size: int) -> dict[str, Any]:
    """Only networks of a fixed input size, such as transformers, know the argument img_size."""
    options = {"num_classes": num_classes, "in_chans": in_channels}
    if library.get_pretrained_cfg(name, allow_unregistered=False).fixed_input_size:
        options["img_size"] = image_size
    return options
