"""How small can this network get before it gets worse? Differentiable quantization experiments in PyTorch.

Importing this package imports nothing heavy; `diffq_exp.quant` has the quantizers, `load_model` a stored network.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from .runs.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
