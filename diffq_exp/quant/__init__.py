"""Quantizers for any PyTorch model and training loop.

quantizer = DiffQuantizer(model, group_size=8)       # attaches; model(x) works on as before
quantizer.setup_optimizer(optimizer)                 # the learned bits train along
loss = task_loss + penalty * quantizer.model_size()  # MB, differentiable
"""

from .base import Quantizer, quantizer_of, restore_quantized_state
from .diffq import DiffQuantizer
from .fixed import UniformQuantizer
from .lsq import LSQ
from .state import StoredModel
from .uniform import Stored

__all__ = [
    "LSQ",
    "DiffQuantizer",
    "Quantizer",
    "Stored",
    "StoredModel",
    "UniformQuantizer",
    "quantizer_of",
    "restore_quantized_state",
]
