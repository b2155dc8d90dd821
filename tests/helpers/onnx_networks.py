"""Networks to export to ONNX, and what is wanted of each graph: onnxruntime computes with it what torch does."""

import numpy as np
import onnx
import torch
from helpers.storage_models import Tied
from torch import nn

from diffq_exp.onnx.graph import onnx_graph
from diffq_exp.onnx.inputs import Input
from diffq_exp.onnx.integers import session
from diffq_exp.storage import stored_model_of
from diffq_exp.stored.network import write_into

IMAGES = (3, 6, 6)


class Recurrent(nn.Module):
    """An LSTM of two directions over the rows; a layer that only training uses."""

    def __init__(self):
        super().__init__()
        self.inside = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 4)
        self.aside = nn.Linear(10, 4)

    def forward(self, x):
        rows, _ = self.inside(x[:, 0])
        return self.head(rows[:, -1]) + (self.aside(rows[:, 0]) if self.training else 0)


class Attention(nn.Module):
    """A transformer's layer over the rows, a weight used transposed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.layer(x[:, 0])) @ self.head.weight


class TiedImages(Tied):
    """Its inputs are images of one number each."""

    def forward(self, x):
        return super().forward((x.flatten(1)[:, 0].abs() * 3).long().clamp(max=10))


class Pair(nn.Linear):
    """Two outputs."""

    def forward(self, x):
        return super().forward(x), x


class Untraceable(nn.Linear):
    """Raises whenever an exporter looks."""

    def forward(self, x):
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise RuntimeError("not by an exporter\nsecond line")
        return super().forward(x.flatten(1)[:, :3])


def exported(source, build, shape=IMAGES, **keywords):
    """The graph of what is stored of `source`, in a fresh network, which is given too."""
    stored = stored_model_of(source)
    fresh = build().eval()
    write_into(fresh, stored)
    inputs = shape if isinstance(shape, Input) else Input(tuple(shape))
    return onnx_graph(fresh, stored, inputs, **keywords), fresh, stored


def agree(graph, model, shape=IMAGES, batch=7):
    """onnxruntime computes what torch does, on images of another seed than the export's own check."""
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(99))
    outputs = session(graph.data).run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.ptp(expected) > 1e-3  # a constant would not do
    assert np.abs(outputs - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    onnx.checker.check_model(graph.data, full_check=True)


def initializers(graph) -> dict:
    return {one.name: one for one in onnx.load_from_string(graph.data).graph.initializer}
