"""What torch.compile has to know of a model with hooks."""

from __future__ import annotations

import torch
import torch._dynamo.config as config  # each optimizer imports it anyway


def notice_hooks() -> None:
    """Let compiled code look whether the hooks of a model are still those that it was compiled with.

    torch.compile does not, unless it is told to, and shares code between models of one class: a model with a
    quantizer would run code that was compiled for one without, or for another quantizer's model, with those
    weights. What was compiled before the first quantizer of a process is compiled anew. Source: "PyTorch 2.0
    NNModule Support" in the documentation of torch.compile, skip_nnmodule_hook_guards.
    """
    if config.skip_nnmodule_hook_guards:
        config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()
