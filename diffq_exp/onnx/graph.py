"""A stored network as an ONNX graph of standard operators, its quantized weights kept as integers.

trace.py gives the graph in float. Here the initializers of quantized weights are replaced by the operators of
weights.py that compute them. Before the bytes are returned, onnxruntime runs them, and its outputs are compared
with those of torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from ..stored.grids import Stored
from ..stored.network import StoredModel
from .inputs import Input
from .integers import KINDS, Kind, choose_opset, kinds_at, session
from .trace import first_line, traced
from .weights import Part, wanted_kinds, weight_part

LARGEST_FILE = 2**31 - 2**20  # bytes; a protobuf ends at 2 GiB
TOLERANCE = 1e-4  # of the largest output, or of 1 where that is smaller
BATCHES = (3, 1)  # other sizes than the one that is traced


@dataclass(frozen=True)
class Graph:
    """The bytes of an ONNX file, and a description of them.

    parts: the quantized weights as integers.   unused: weights that no output depends on; they are left out.
    """

    data: bytes
    opset: int
    exporter: str
    parts: Sequence[Part]
    unused: Sequence[str]
    difference: float  # the largest from torch, as a part of the largest output or of 1


def onnx_graph(
    model: nn.Module,
    stored: StoredModel,
    inputs: Input,
    opset: int | None = None,
    notes: Mapping[str, str] | None = None,
) -> Graph:
    """The graph of a network in eval mode that holds the values of `stored`; in any size of batch.

    notes: text that the file carries. Raises: ValueError of one line when the network cannot be exported, or when
    onnxruntime computes something else with the graph than torch does.
    """
    stored = _on_cpu(stored)
    _check_size(
        sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in stored.values().values()}.values())
    )
    wanted = [kind for tensor in stored.tensors.values() for kind in wanted_kinds(tensor, KINDS)]
    opset = choose_opset(wanted, opset)
    _check_outputs(model, inputs)
    proto, exporter = traced(model, inputs.batch(2), inputs.name, opset)
    parts, unused = _set_weights(proto, model, stored, inputs, kinds_at(opset))
    _halve(proto, stored)
    proto.metadata_props.extend(
        onnx.StringStringEntryProto(key=key, value=text) for key, text in (notes or {}).items()
    )
    _check_size(proto.ByteSize())
    data = proto.SerializeToString(deterministic=True)
    return Graph(data, opset, exporter, parts, unused, _checked_difference(data, model, inputs))


def _on_cpu(stored: StoredModel) -> StoredModel:
    tensors = {name: tensor.to("cpu") for name, tensor in stored.tensors.items()}
    return StoredModel(stored.method, tensors, stored.floats, stored.buffers, stored.tied)


def _check_size(nbytes: int) -> None:
    if nbytes > LARGEST_FILE:
        raise ValueError(
            f"{nbytes:,} bytes of weights do not fit: an ONNX file ends at 2 GiB, also while it is still in float"
        )


def _check_outputs(model: nn.Module, inputs: Input) -> None:
    try:
        with torch.no_grad():
            outputs = model(inputs.batch(2))
    except Exception as error:  # a user's network can raise any exception
        raise ValueError(
            f"its network does not take {inputs.name} of {inputs.shape}: {first_line(error)}"
        ) from error
    if not isinstance(outputs, torch.Tensor):
        raise ValueError(f"its network gives a {type(outputs).__name__}, and only one tensor can be exported")


# ---- integers in the place of floats --------------------------------------------------------------------------


def _set_weights(
    proto: ModelProto, model: nn.Module, stored: StoredModel, inputs: Input, kinds: Sequence[Kind]
) -> tuple[list[Part], list[str]]:
    """Replace initializers by the parts that compute them; -> the parts, and the names of unused weights."""
    initializers = {initializer.name: initializer for initializer in proto.graph.initializer}
    owners: dict[str, tuple[str, Stored]] = {}
    absent = []
    for name, tensor in stored.tensors.items():
        names = [name, *(other for other, first in stored.tied.items() if first == name)]
        matching = _initializers_of(tensor, names, initializers)
        for match in matching:
            owners.setdefault(match, (name, tensor))
        if not matching:
            absent.append(name)
    used = _used(model, absent, inputs) if absent else []
    if used:
        raise ValueError(
            f"the exported graph does not hold {used[0]!r} as it is stored, so it cannot be kept in integers"
        )
    parts = [_part(name, *owner, kinds, initializers[name].data_type) for name, owner in owners.items()]
    _replace(
        proto,
        {part.name for part in parts},
        [node for part in parts for node in part.nodes],
        [constant for part in parts for constant in part.constants],
    )
    return parts, absent


def _part(name: str, own: str, tensor: Stored, kinds: Sequence[Kind], code: int) -> Part:
    try:
        return weight_part(name, tensor, kinds, code)
    except ValueError as error:
        raise ValueError(f"{own!r}: {error}") from error


def _initializers_of(tensor: Stored, names: Sequence[str], initializers: Mapping[str, TensorProto]) -> list[str]:
    """Names of the initializers with the values of a quantized tensor: under one of its names, else under any name.

    An exporter may put a prefix before all names, and writes two tensors of equal values once.
    """
    values = tensor.values().float().numpy()
    named = [name for name in names if name in initializers and _holds(initializers[name], values)]
    return named or [name for name, initializer in initializers.items() if _holds(initializer, values)]


def _holds(initializer: TensorProto, values: np.ndarray) -> bool:
    if tuple(initializer.dims) != values.shape:
        return False
    return np.array_equal(numpy_helper.to_array(initializer).astype(np.float32), values)


def _used(model: nn.Module, names: Sequence[str], inputs: Input) -> list[str]:
    """Of these parameters, those that the outputs depend on."""
    parameters = [model.get_parameter(name) for name in names]
    outputs = model(inputs.batch(2))
    if not outputs.requires_grad:
        return list(names)
    gradients = torch.autograd.grad(outputs.sum(), parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]


def _halve(proto: ModelProto, stored: StoredModel) -> None:
    """Keep float16 values in two bytes; a Cast widens them."""
    halves = {name: value for name, value in stored.floats.items() if value.dtype == torch.float16}
    halves |= {other: halves[name] for other, name in stored.tied.items() if name in halves}
    nodes, constants = [], []
    for initializer in proto.graph.initializer:
        name, dtype = initializer.name, initializer.data_type
        value = halves.get(name)
        if value is None or dtype == TensorProto.FLOAT16 or not _holds(initializer, value.float().numpy()):
            continue
        constants.append(numpy_helper.from_array(value.cpu().numpy(), f"{name}/float16"))
        nodes.append(helper.make_node("Cast", [constants[-1].name], [name], name=f"{name}/Cast", to=dtype))
    _replace(proto, {node.output[0] for node in nodes}, nodes, constants)


def _replace(
    proto: ModelProto, gone: set[str], nodes: Sequence[NodeProto], constants: Sequence[TensorProto]
) -> None:
    """Take initializers out; put in nodes that compute the same names, before all that use them."""
    graph = proto.graph
    kept = [initializer for initializer in graph.initializer if initializer.name not in gone]
    later = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *constants])
    graph.node.extend([*nodes, *later])


# ---- the check ------------------------------------------------------------------------------------------------


def _checked_difference(data: bytes, model: nn.Module, inputs: Input) -> float:
    """The largest difference of onnxruntime from torch on seeded batches. Raises: ValueError over TOLERANCE."""
    batches = [inputs.batch(size) for size in BATCHES]
    with torch.no_grad():
        expected = [model(batch).double().numpy() for batch in batches]
    if not all(np.isfinite(outputs).all() for outputs in expected):
        raise ValueError("its network gives outputs that are not finite")
    try:
        onnx.checker.check_model(data, full_check=True)
        running = session(data, torch.get_num_threads())
        outputs = [running.run(None, {inputs.name: batch.numpy()})[0] for batch in batches]
    except Exception as error:  # onnxruntime and the checker have exceptions of their own, with no common class
        raise ValueError(f"the ONNX graph does not run: {first_line(error)}") from error
    largest = max(map(_difference, outputs, expected))
    if not largest <= TOLERANCE:
        raise ValueError(
            f"onnxruntime computes other outputs than torch: they differ by {largest:.3g}, over {TOLERANCE}"
        )
    return largest


def _difference(outputs: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a part of the largest expected value or of 1; inf for another shape or nan."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return math.inf
    return float(np.abs(outputs - expected).max(initial=0) / max(1.0, np.abs(expected).max(initial=0)))
