"""Causal language models and image classifiers of Hugging Face's transformers. The package is an optional extra.

A network is made from a configuration: of a kind of network by its name (gpt2, vit), or of a folder or of the hub.
With `pretrained` its weights are read too. Layers whose shape depends on vocabulary or classes are drawn anew
where the data have others. Code that a hub may offer is never run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..common.names import hint
from ..common.packages import install_command
from .rebuilding import is_rebuilding
from .stem import tried

POSITIONS = "max_position_embeddings"


class Logits(nn.Module):
    """A network of transformers that gives its logits alone."""

    def __init__(self, network: nn.Module, input_name: str, options: Mapping[str, object]) -> None:
        super().__init__()
        self.network, self.input_name, self.options = network, input_name, dict(options)

    @property
    def rebuilt_by(self) -> dict[str, object]:
        """Arguments of `transformers` that make the same network without a folder or the hub."""
        settings: Any = self.network.config
        usual = type(settings)().to_dict()
        config = {key: value for key, value in settings.to_dict().items() if key in usual and value != usual[key]}
        positions = settings.attribute_map.get(POSITIONS, POSITIONS)
        if positions in usual:  # else it would follow the length of the data
            config[positions] = getattr(settings, positions)
        return {"name": settings.model_type, "config": config}

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(**{self.input_name: inputs}, **self.options).logits
        return logits


def transformers(
    name: str,
    pretrained: bool = False,
    config: Mapping[str, object] | None = None,
    *,
    vocabulary: int | None = None,
    length: int | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    image_size: int = 224,
) -> nn.Module:
    """Tokens (B, length) -> (B, length, vocabulary), or images (B, in_channels, H, W) -> (B, num_classes).

    name: a kind of network, or a folder (`~` too) or name of the hub.  config: its entries that are to differ.
    ValueError for an unknown name or entry, for sizes that the network cannot take, or where transformers is
    not installed.
    """
    name = os.path.expanduser(name)
    if vocabulary is not None and length is not None:
        sizes = {"vocab_size": vocabulary, POSITIONS: length}
        network = _network("AutoModelForCausalLM", name, pretrained, sizes, dict(config or {}))
        model = Logits(network, "input_ids", {"use_cache": False})
        _try_tokens(model, name, vocabulary, length)
    else:
        sizes = {"num_labels": num_classes or 0, "num_channels": in_channels, "image_size": image_size}
        network = _network("AutoModelForImageClassification", name, pretrained, sizes, dict(config or {}))
        model = Logits(network, "pixel_values", {})
        tried(model, f"transformers' {name}", num_classes or 0, in_channels, image_size)
    return model.train()


def _library() -> ModuleType:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise ValueError(f"model=transformers needs its package: {install_command('transformers')}") from error


def _network(family: str, name: str, pretrained: bool, sizes: dict[str, int], changes: dict[str, Any]) -> nn.Module:
    library = _library()
    family_class = getattr(library, family)
    with _silent():
        settings = _configuration(library, name, pretrained, sizes, changes)
        if type(settings) not in family_class._model_mapping:
            known = [kind.model_type for kind in family_class._model_mapping]
            raise ValueError(f"{family} of transformers has no '{settings.model_type}'{hint(name, known)}")
        with _as_one_line(name):
            if not pretrained:
                network: nn.Module = family_class.from_config(settings)
            else:
                options = {"ignore_mismatched_sizes": True, "dtype": torch.float32}
                network = family_class.from_pretrained(name, config=settings, **options)
    return network


def _configuration(
    library: ModuleType, name: str, pretrained: bool, sizes: dict[str, int], changes: dict[str, Any]
) -> Any:
    """The configuration of a name, with the sizes of the data and the user's changes."""
    kinds = library.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if name in kinds and not pretrained:
        make = library.AutoConfig.for_model
    elif not is_rebuilding() and (pretrained or "/" in name or Path(name).is_dir()):
        make = library.AutoConfig.from_pretrained
        sizes = {key: value for key, value in sizes.items() if key != POSITIONS}  # trained for as many as it has
    else:
        raise ValueError(f"transformers has no kind of network '{name}'{hint(name, kinds)}")
    with _as_one_line(name):
        usual = make(name)
    entries = _entries(usual, sizes, changes)
    with _as_one_line(name):
        return make(name, **entries)  # not set afterwards: entries that are not given follow from these


def _entries(usual: Any, sizes: dict[str, int], changes: dict[str, Any]) -> dict[str, object]:
    """The sizes as far as there are such entries, then the changes; no special tokens beyond the vocabulary."""
    known = [*usual.to_dict(), *usual.attribute_map, "num_labels"]
    for key in changes:
        if key not in known:
            raise ValueError(f"model.config.{key}: the configuration has no such entry{hint(key, known)}")
    entries: dict[str, object] = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        number = getattr(usual, key, None)
        if isinstance(number, int) and number >= sizes.get("vocab_size", number + 1):
            entries[key] = None
    for key, value in {**{key: sizes[key] for key in sizes if hasattr(usual, key)}, **changes}.items():
        entries[usual.attribute_map.get(key, key)] = value
    return entries


def _try_tokens(model: nn.Module, name: str, vocabulary: int, length: int) -> None:
    """See that a network takes windows of this length and gives logits of this vocabulary."""
    if is_rebuilding():
        return
    model.eval()
    with _as_one_line(f"{name} with dataset.length={length}"), torch.no_grad():
        shape = tuple(model(torch.zeros(1, length, dtype=torch.int64)).shape)
    if shape != (1, length, vocabulary):
        raise ValueError(f"transformers' {name} gives {shape} for one window, not {(1, length, vocabulary)}")


@contextmanager
def _as_one_line(subject: str) -> Iterator[None]:
    """Any exception of the library as a ValueError of one line."""
    try:
        yield
    except Exception as error:  # of a stranger's network, or of the hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"transformers' {subject}: {reason}") from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's remarks on weights that are drawn anew."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
