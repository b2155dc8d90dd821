"""A noise of your own: triangular, the sum of two uniform ones.

python -m diffq_exp.train noise={_target_:triangular.Triangular}
python -m diffq_exp.train --config-dir . quantizer=diffq_triangular
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffq_exp.quant import Noise


@dataclass(frozen=True)
class Triangular(Noise):
    """Between -width and width steps, of variance width^2 / 6."""

    width: float = 1.0

    def draw(self, weight: Tensor, step: Tensor) -> Tensor:
        return self.width * (torch.rand_like(weight) - torch.rand_like(weight))
