"""Quantizers for any PyTorch model and training loop.

quantizer = DiffQuantizer(model, group_size=8)       # attaches; model(x) works on as before
optimizer = Adam(quantizer.base_parameters())
quantizer.setup_optimizer(optimizer)                 # the learned bits train along
loss = task_loss + penalty * quantizer.model_size()  # MB, differentiable
"""

from ..stored.grids import Stored
from ..stored.network import StoredModel
from .diffq import DiffQuantizer
from .learned import Learned
from .lookup import quantizer_of, restore_quantized_state
from .lsq import LSQ
from .noise import Noise
from .quantizer import Quantizer
from .rate import RateQuantizer
from .size import Size
from .uniform import UniformQuantizer

__all__ = [
    "LSQ",
    "DiffQuantizer",
    "Learned",
    "Noise",
    "Quantizer",
    "RateQuantizer",
    "Size",
    "Stored",
    "StoredModel",
    "UniformQuantizer",
    "quantizer_of",
    "restore_quantized_state",
]
