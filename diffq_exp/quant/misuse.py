"""Uses of a model in which its quantizer would compute with wrong weights, and what is said of them."""

from __future__ import annotations

UNSEEN = (
    "an optimizer steps, but no training forward of the model has seen the weights of its {}: call model(...), not "
    "model.forward(...) or a part of the model, attach the quantizer before torch.compile, or use noisy()"
)


class Recomputed(RuntimeError):
    """Layers ran again in a backward, where they do not see the weights of their forward."""

    def __init__(self) -> None:
        super().__init__(
            "layers of the model run again in the backward (activation checkpointing), where they would see other "
            "weights: run forward and backward inside `with quantizer.noisy():`"
        )


class Replica(RuntimeError):
    """A copy of the model that nn.DataParallel makes for a forward, which has no parameters to swap."""

    def __init__(self) -> None:
        super().__init__(
            "nn.DataParallel computes with copies of the model, which a quantizer does not reach: "
            "use DistributedDataParallel, a process for each GPU (torchrun), or a single GPU"
        )


class ChangedInForward(RuntimeError):
    """A weight that a forward changes by itself: the change would not reach the parameter."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is changed by the forward of the model itself, in place or by .data; quantized it would "
            f"lose that: exclude it (exclude=[{name!r}]), or compute with a changed copy"
        )
