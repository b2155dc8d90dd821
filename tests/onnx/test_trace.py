"""No wrong ONNX file: what cannot be exported, or comes out otherwise than in torch, is refused in one line."""

import numpy as np
import pytest
import torch
from helpers.onnx_networks import Pair, Untraceable, agree, exported
from helpers.storage_models import Net, attached, network
from onnx import numpy_helper

from diffq_exp.onnx import graph as graphs
from diffq_exp.onnx import trace as onnx_trace
from diffq_exp.quant import LSQ


def test_a_weight_that_is_not_in_the_graph_as_stored_is_refused(monkeypatch):
    def scaled(model, example, name, opset):
        proto = onnx_trace._by_export(model, example, name, opset)
        one = next(one for one in proto.graph.initializer if one.name == "head.weight")
        one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one) * np.float32(2), one.name))
        return proto

    monkeypatch.setattr(onnx_trace, "EXPORTERS", {"scaled": scaled})
    with pytest.raises(ValueError, match=r"does not hold 'head.weight' as it is stored"):
        exported(attached("uniform 4", network()), Net)


def test_names_with_a_prefix_are_found_by_value(monkeypatch):
    def renamed(model, example, name, opset):
        proto = onnx_trace._by_script(model, example, name, opset)
        for one in proto.graph.initializer:
            for node in proto.graph.node:
                node.input[:] = [f"model.{key}" if key == one.name else key for key in node.input]
            one.name = f"model.{one.name}"
        return proto

    monkeypatch.setattr(onnx_trace, "EXPORTERS", {"renamed": renamed})
    graph, model, stored = exported(attached("diffq 8, tails", network()), Net)
    agree(graph, model)
    assert {part.name for part in graph.parts} == {f"model.{name}" for name in stored.tensors}


@pytest.mark.usefixtures("by_script")
def test_outputs_that_differ_are_refused(monkeypatch):
    real = graphs.weight_part

    def wrong(name, tensor, *rest):
        part = real(name, tensor, *rest)
        low = next(one for one in part.constants if one.name.endswith("/low"))
        low.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(low) + np.float32(0.01), low.name))
        return part

    monkeypatch.setattr(graphs, "weight_part", wrong)
    with pytest.raises(ValueError, match="other outputs than torch"):
        exported(attached("uniform 4", network()), Net)


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(value):
    model = network()
    with torch.no_grad():
        model.head.bias[0] = value
    with pytest.raises(ValueError, match="not finite"):
        exported(attached("none", model), Net)


def test_networks_that_cannot_be_exported():
    with pytest.raises(ValueError, match="gives a tuple"):
        exported(Pair(6, 2).eval(), lambda: Pair(6, 2))
    with pytest.raises(ValueError, match=r"torch.export: .*not by an exporter; TorchScript: not by an exporter\)$"):
        exported(Untraceable(3, 2).eval(), lambda: Untraceable(3, 2))


@pytest.mark.usefixtures("by_script")
def test_more_than_two_gib_are_refused(monkeypatch):
    monkeypatch.setattr(graphs, "LARGEST_FILE", 1000)
    with pytest.raises(ValueError, match="2 GiB"):
        exported(LSQ(network(), min_size=0), Net)


def test_a_graph_for_one_size_of_batch_is_not_taken(monkeypatch):
    """As torch 2.6 gives of an LSTM, without a word."""

    def fixed(model, example, name, opset):
        proto = onnx_trace._by_script(model, example, name, opset)
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        return proto

    monkeypatch.setitem(onnx_trace.EXPORTERS, "torch.export", fixed)
    graph, model, _ = exported(attached("uniform 4", network()), Net)
    assert graph.exporter == "TorchScript"
    agree(graph, model)
    monkeypatch.setattr(onnx_trace, "EXPORTERS", {"fixed": fixed})
    with pytest.raises(ValueError, match="batches of 2 only"):
        exported(attached("uniform 4", network()), Net)
