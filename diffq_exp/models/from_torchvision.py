"""Any classification network of torchvision by its name, with its ImageNet weights if wanted."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..common.names import hint
from .stem import fit_channels, tried


def torchvision(
    name: str, pretrained: bool = False, *, num_classes: int, in_channels: int = 3, image_size: int = 224
) -> nn.Module:
    """(B, in_channels, image_size, image_size) -> (B, num_classes).

    `pretrained` downloads torchvision's best weights and gives them a fresh last layer unless they have
    `num_classes` classes. ValueError for an unknown name, or a size that the network cannot take.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classification model '{name}'{hint(name, known)}")
    options = {"weights": "DEFAULT"} if pretrained else _options(name, num_classes, image_size)
    try:
        model: nn.Module = models.get_model(name, **options)
    except (AssertionError, ValueError) as error:  # the transformers check sizes so
        reason = str(error).splitlines()[0]
        raise ValueError(f"torchvision's {name} does not take image_size={image_size}: {reason}") from error
    except (OSError, RuntimeError) as error:  # no network, no room, or a wrong checksum
        raise ValueError(f"the weights of torchvision's {name} could not be fetched: {error}") from error
    if pretrained:
        replace_head(model, num_classes)
    fit_channels(model, in_channels, keep_weights=pretrained)
    return tried(model, f"torchvision's {name}", num_classes, in_channels, image_size)


def _options(name: str, num_classes: int, image_size: int) -> dict[str, object]:
    """Arguments of torchvision's builder for a network without weights."""
    options: dict[str, object] = {"num_classes": num_classes}
    if name in ("googlenet", "inception_v3"):  # one output in training too; left open, init_weights warns
        options |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = image_size
    if name == "maxvit_t":
        options["input_size"] = (image_size, image_size)
    return options


def replace_head(model: nn.Module, num_classes: int) -> None:
    """Give the last layer `num_classes` outputs, fresh, unless it has them; drop an auxiliary one."""
    if getattr(model, "AuxLogits", None) is not None:
        inception = cast(Any, model)
        inception.aux_logits, inception.AuxLogits = False, None
    layers = [pair for pair in model.named_modules() if isinstance(pair[1], nn.Linear | nn.Conv2d)]
    name, old = layers[-1]
    outputs, inputs = old.weight.shape[:2]
    if outputs != num_classes:  # linear, or in SqueezeNet a 1x1 convolution
        linear = isinstance(old, nn.Linear)
        model.set_submodule(name, nn.Linear(inputs, num_classes) if linear else nn.Conv2d(inputs, num_classes, 1))
