"""Inputs of a graph: images and rows in float32, tokens in int64; and a decoder on tokens in ONNX."""

import numpy as np
import pytest
import torch
from helpers.onnx_networks import exported

from diffq_exp.models import gpt
from diffq_exp.onnx.inputs import Input
from diffq_exp.onnx.integers import session
from diffq_exp.quant import UniformQuantizer


@pytest.mark.parametrize(
    ("described", "name", "dtype"),
    [
        ({"shape": [1, 8, 8], "classes": ["a"]}, "images", torch.float32),
        ({"shape": [5]}, "inputs", torch.float32),
        ({"shape": [6], "dtype": "int64", "vocabulary": 9}, "tokens", torch.int64),
    ],
)
def test_an_input_is_made_as_described(described, name, dtype):
    made = Input.described(described)
    batch = made.batch(4)
    assert (made.name, batch.dtype, batch.shape) == (name, dtype, (4, *described["shape"]))
    assert torch.equal(batch, made.batch(4))
    if name == "tokens":
        assert 0 <= int(batch.min()) <= int(batch.max()) < 9


def test_a_decoder_takes_tokens_and_keeps_its_weights_as_integers():
    def build():
        torch.manual_seed(0)
        return gpt(20, 6, layers=1, width=16, heads=2)

    model = build()
    quantizer = UniformQuantizer(model, bits=4, min_size=0)
    graph, fresh, stored = exported(quantizer, build, Input((6,), 20))
    assert len(graph.parts) == len(stored.tensors) and not graph.unused
    tokens = torch.randint(20, (5, 6))
    outputs = session(graph.data).run(None, {"tokens": tokens.numpy()})[0]
    with torch.no_grad():
        expected = fresh(tokens).numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * max(1, abs(expected).max()))
