"""What torch.compile has to know of a model with hooks."""

from __future__ import annotations

import torch

NEEDED = {  # of torch.compile's settings, where a release of torch has them
    "skip_nnmodule_hook_guards": False,  # compiled code looks whether hooks are those that it was compiled with
    "wrap_top_frame": True,  # the hooks of a root are compiled together with its forward
}


def notice_hooks(attached: bool = True) -> None:
    """Let torch.compile see that a model has a quantizer. attached: just now; else it is a copy of such a model.

    It shares code between models of one class, and does not look whether their hooks differ unless it is told to: a
    model would run code of a model without a quantizer, or of another quantizer's model. Resets torch.compile, too:
    code of all models in this process is compiled again. Source: "PyTorch 2.0 NNModule Support" in the
    documentation of torch.compile.
    """
    import torch._dynamo.config as config  # two seconds, for those who train: each optimizer imports it too

    missing = {name: value for name, value in NEEDED.items() if getattr(config, name, value) != value}
    for name, value in missing.items():
        setattr(config, name, value)
    if missing or attached:
        torch.compiler.reset()
