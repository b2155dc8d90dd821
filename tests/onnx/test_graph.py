"""Networks as ONNX graphs: onnxruntime computes what torch does, with the weights in integers."""

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_networks import IMAGES, Attention, Recurrent, TiedImages, agree, exported, initializers
from helpers.storage_models import Net, attached, network, wide
from onnx import TensorProto, numpy_helper

from diffq_exp import models
from diffq_exp.onnx import trace as onnx_trace
from diffq_exp.onnx.graph import onnx_graph
from diffq_exp.onnx.inputs import Input
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer
from diffq_exp.storage import stored_model_of
from diffq_exp.stored.network import write_into

INTEGERS = {TensorProto.DataType.Value(f"UINT{n}") for n in (2, 4, 8, 16) if f"UINT{n}" in dir(TensorProto)}


QUICK = ("diffq 8, tails",)
LONG = ("diffq whole tensors", "diffq 1", "uniform 2.5", "lsq 3", "rate", "none")


@pytest.mark.parametrize("way", [*QUICK, *(pytest.param(way, marks=pytest.mark.long) for way in LONG)])
def test_it_computes_what_torch_does(way):
    graph, model, stored = exported(attached(way, network()), Net)
    agree(graph, model)
    held = initializers(graph)
    for name, tensor in stored.tensors.items():
        assert name not in held
        part = next(part for part in graph.parts if part.name == name)
        own = [one for one in held.values() if one.name.startswith(f"{name}/levels_")]
        assert {one.data_type for one in own} <= INTEGERS
        assert sum(numpy_helper.to_array(one).size for one in own) >= tensor.levels.numel()
        assert sum(len(one.raw_data) for one in own) == sum(part.level_bytes.values())
    floats = [one for one in held.values() if one.data_type == TensorProto.FLOAT and np.prod(one.dims) > 1]
    widths = {f"{name}/scale" for name in stored.tensors} | {f"{name}/scales" for name in stored.tensors}
    assert {one.name for one in floats} - widths <= {*stored.floats, *stored.buffers}


def test_the_digits_network_with_every_width():
    build = lambda: models.digits_cnn(4, 1, 8)  # noqa: E731
    graph, model, stored = exported(attached("diffq 8, tails", network(build)), build, (1, 8, 8))
    agree(graph, model, (1, 8, 8))
    assert {int(bits) for tensor in stored.tensors.values() for bits in tensor.bits.unique()} >= {1, 15}
    proto = onnx.load_from_string(graph.data)
    assert {one.domain for one in proto.opset_import if one.version} <= {""} and not proto.functions
    assert all(node.domain == "" for node in proto.graph.node)  # standard operators only
    assert {"DequantizeLinear", "Add", "Reshape", "Conv"} <= {node.op_type for node in proto.graph.node}
    assert [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim][1:] == [
        1,
        8,
        8,
    ]
    assert len(graph.data) < 0.5 * 4 * sum(tensor.levels.numel() for tensor in stored.tensors.values())


@pytest.mark.usefixtures("by_script")
def test_groups_without_bits():
    quantizer = attached("diffq 8, tails", network())
    stored = stored_model_of(quantizer)
    for tensor in stored.tensors.values():
        empty = torch.arange(len(tensor.bits)) % 3 == 2
        tensor.bits[empty] = 0
        tensor.levels[empty.repeat_interleave(tensor.group_size)[: len(tensor.levels)]] = 0
    model = Net().eval()
    write_into(model, stored)
    assert (model.conv.weight == 0).sum() > 30 and all(tensor.bits.any() for tensor in stored.tensors.values())
    graph = onnx_graph(model, stored, Input(tuple(IMAGES)))
    agree(graph, model)


@pytest.mark.usefixtures("by_script")
def test_small_floats():
    """A folded norm on a grid, which the quantizer leaves."""
    stored = stored_model_of(LSQ(wide(), bits=3, min_size=0, exclude=["norm.*"]), "int8", fold=True)
    model = wide(seed=1)
    write_into(model, stored)
    graph = onnx_graph(model, stored, Input(tuple(IMAGES)))
    agree(graph, model)
    assert {"norm.weight", "norm.bias"} <= {part.name for part in graph.parts}


@pytest.mark.usefixtures("by_script")
def test_constant_weights():
    """A fresh norm's ones and zeros; equal tensors, which an exporter may write once."""
    for kind in (DiffQuantizer, UniformQuantizer):
        graph, model, stored = exported(kind(Net().eval(), min_size=0), Net)
        agree(graph, model)
        assert set(stored.tensors) == {
            "conv.weight",
            "conv.bias",
            "norm.weight",
            "norm.bias",
            "head.weight",
            "head.bias",
        }


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("detect", [True, False])
def test_tied_weights_are_there_once(detect):
    source = UniformQuantizer(network(TiedImages), bits=4, min_size=0, detect_bound=detect)
    graph, model, stored = exported(source, TiedImages)
    agree(graph, model)
    tables = [one for one in initializers(graph).values() if np.prod(one.dims) == 77]
    assert len(tables) == 1 and tables[0].data_type == TensorProto.UINT4
    assert bool(stored.tied) == detect


@pytest.mark.long
@pytest.mark.parametrize("build", [Recurrent, Attention])
def test_other_layers(build):
    graph, model, stored = exported(attached("diffq 8, tails", network(build)), build)
    agree(graph, model)
    assert list(graph.unused) == (["aside.weight", "aside.bias"] if build is Recurrent else [])
    assert {part.name for part in graph.parts} == {*stored.tensors} - {*graph.unused}
    assert not any(name.startswith("aside") for name in initializers(graph))


@pytest.mark.usefixtures("by_script")
def test_float16_parts_take_two_bytes():
    source = DiffQuantizer(network(), min_size=4 * 20 / 2**20, float16=True, group_size=4)
    graph, model, stored = exported(source, Net)
    agree(graph, model)
    held = initializers(graph)
    assert len(stored.floats) > 2
    for name in stored.floats:
        assert held[f"{name}/float16"].data_type == TensorProto.FLOAT16 and name not in held


@pytest.mark.parametrize("way", ["diffq 8, tails", "lsq 3"])
def test_the_older_exporter_stands_in_for_the_newer(way, monkeypatch):
    def fail(*_):
        raise RuntimeError("no")

    monkeypatch.setitem(onnx_trace.EXPORTERS, "torch.export", fail)
    graph, model, stored = exported(attached(way, network()), Net)
    assert graph.exporter == "TorchScript"
    agree(graph, model)
    assert len(graph.parts) == len(stored.tensors)


@pytest.mark.long
def test_a_given_opset():
    source = attached("diffq 8, tails", network())
    graph, model, _ = exported(source, Net, opset=21)
    agree(graph, model)
    proto = onnx.load_from_string(graph.data)
    assert [one.version for one in proto.opset_import if one.domain == ""] == [21] == [graph.opset]
    assert not {one.data_type for one in initializers(graph).values()} & {getattr(TensorProto, "UINT2", -1)}
    with pytest.raises(ValueError, match=r"opset 3\b"):
        exported(source, Net, opset=3)
    with pytest.raises(ValueError, match=r"'conv.weight': .* bits"):
        exported(source, Net, opset=18)


@pytest.mark.long
def test_nothing_of_this_machine_is_in_the_file():
    graph, _, _ = exported(attached("uniform 4", network()), Net, notes={"mean": "[0.5]"})
    assert b".py" not in graph.data and b"stack_trace" not in graph.data
    notes = onnx.load_from_string(graph.data).metadata_props
    assert [(note.key, note.value) for note in notes] == [("mean", "[0.5]")]


@pytest.mark.long
def test_the_same_network_gives_the_same_bytes():
    one, other = (exported(attached("diffq 8, tails", network()), Net)[0] for _ in range(2))
    assert one.data == other.data
