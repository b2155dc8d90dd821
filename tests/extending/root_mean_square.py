"""A size of your own: a group that is wider than others costs more than its bits.

python -m diffq_exp.train --config-dir . size=root_mean_square penalty_schedule=late
"""

from torch import Tensor

from diffq_exp.quant import Quantizer, Size


class RootMeanSquare(Size):
    """Entries times the root of their mean squared width, in MB: the size, if all groups had the same width.

    Of several widths with one mean, those that differ less are smaller: for hardware with one width for a network.
    """

    name = "rms"  # result.json has size_mb: {soft: ..., measure: rms, ...}

    def soft(self, quantizer: Quantizer) -> Tensor:
        weights = quantizer.selection.quantized
        entries = sum(weight.entries for weight in weights)
        squares = sum(quantizer.widths(weight).square().mean() * weight.entries for weight in weights)
        return (squares / entries).sqrt() * entries / (8 * 2**20)
