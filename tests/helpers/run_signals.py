"""Signals to this process at a chosen moment of its training."""

import os

from diffq_exp.tasks.classification import Classification


def interrupt_at(monkeypatch, batch, number, times=1):
    """Send this process a signal during one of the training batches, counted from now on."""
    plain, left = Classification.loss, [batch]

    def loss(self, outputs, targets):
        left[0] -= outputs.requires_grad
        if left[0] == 0 and outputs.requires_grad:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return plain(self, outputs, targets)

    monkeypatch.setattr(Classification, "loss", loss)
