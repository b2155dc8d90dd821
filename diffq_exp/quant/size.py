"""What the size of a quantized network is: the measure that the penalty of the loss is on.

Shipped are the paper's formula (formula.py) and an estimate of the coder's bytes. Another measure is a class with a
`name` and a `soft`, chosen by `size._target_=package.Class` or a YAML in conf/size/.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from .formula import BITS_PER_MB
from .quantizer import Quantizer


class Size(ABC):
    """A measure of size. `name` is written beside every soft size, as `size_mb.measure`."""

    name: str

    def measure(self, quantizer: Quantizer) -> str:
        """The name of what `soft` measures."""
        return self.name

    @abstractmethod
    def soft(self, quantizer: Quantizer) -> Tensor:
        """The size in MB (2^20 bytes), a scalar, differentiable in the learned tensors of the quantizer."""


class FormulaSize(Size):
    """The quantizer's own `model_size()`: the paper's formula (arXiv 2104.09987), or its method's own."""

    name = "formula"

    def measure(self, quantizer: Quantizer) -> str:
        return quantizer.measure

    def soft(self, quantizer: Quantizer) -> Tensor:
        return quantizer.model_size()


class CodedSize(Size):
    """What the coder of the file is estimated to spend on quantized tensors; the others as in `model_size()`."""

    name = "coded"

    def soft(self, quantizer: Quantizer) -> Tensor:
        if not quantizer.selection.quantized:
            return quantizer.model_size()
        return (quantizer.coded_bits() + quantizer.float_bits) / BITS_PER_MB
