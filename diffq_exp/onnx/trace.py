"""A network -> its ONNX graph in float, each weight an initializer of its own under its name in the state_dict.

Constants are not folded, so that no BatchNorm vanishes into a weight. Of the two exporters of torch.onnx the
newer is tried first, then the older: with torch 2.6 the newer often fails.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx.version_converter
import torch
from onnx import ModelProto
from torch import Tensor, nn

from .integers import ir_version

OUTPUT = "outputs"


def _by_export(model: nn.Module, example: Tensor, name: str, opset: int) -> ModelProto:
    """The exporter on torch.export."""
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        model, (example,), dynamo=True, optimize=False, verbose=False, opset_version=opset,
        input_names=[name], output_names=[OUTPUT], dynamic_shapes=({0: batch},),
    )  # fmt: skip
    assert program is not None
    return program.model_proto


def _by_script(model: nn.Module, example: Tensor, name: str, opset: int) -> ModelProto:
    """The exporter on TorchScript, which knows no newer opset than 20."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model, (example,), path, dynamo=False, verbose=False, opset_version=min(opset, 20),
            training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold BatchNorm into the weights
            do_constant_folding=False, input_names=[name], output_names=[OUTPUT],
            dynamic_axes={name: {0: "batch"}, OUTPUT: {0: "batch"}},
        )  # fmt: skip
        return onnx.load(path)


EXPORTERS: dict[str, Callable[[nn.Module, Tensor, str, int], ModelProto]] = {
    "torch.export": _by_export,
    "TorchScript": _by_script,
}


def traced(model: nn.Module, example: Tensor, name: str, opset: int) -> tuple[ModelProto, str]:
    """-> the graph in float at `opset`, and the exporter that made it. Raises: ValueError with both reasons."""
    reasons = []
    for exporter, export in EXPORTERS.items():
        try:
            with _quiet():
                proto = export(model, example, name, opset)
                if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
                    raise ValueError(f"its graph takes batches of {len(example)} only")
                if _opset(proto) != opset:
                    proto = onnx.version_converter.convert_version(proto, opset)
            return _stripped(proto), exporter
        except Exception as error:  # a network that cannot be traced fails in any way
            reasons.append(f"{exporter}: {first_line(error)}")
    raise ValueError(f"its network cannot be exported to ONNX ({'; '.join(reasons)})")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which write to the log, warn, and print about their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """The reason at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _opset(proto: ModelProto) -> int:
    return int(next(entry.version for entry in proto.opset_import if entry.domain == ""))


def _stripped(proto: ModelProto) -> ModelProto:
    """Remove an exporter's notes about itself: names of source files, the shape of every value."""
    proto.ir_version = max(proto.ir_version, ir_version(_opset(proto)))
    del proto.graph.value_info[:]
    for owner in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *proto.graph.input):
        owner.ClearField("doc_string")
        if "metadata_props" in owner.DESCRIPTOR.fields_by_name:
            owner.ClearField("metadata_props")
    return proto
