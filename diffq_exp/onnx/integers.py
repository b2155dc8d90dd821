"""The integer types of ONNX that hold levels, and which of them the installed onnxruntime really runs.

Levels of n bits are kept as the narrowest of uint2, uint4, uint8 and uint16 that holds them; a DequantizeLinear
with a scale per row turns them into floats. uint2 came with opset 25, uint4 and uint16 with 21, and a runtime lags
behind the standard. So no table of versions is consulted: a model of one node is run for each opset and type.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

LOWEST = 18  # the oldest opset that torch.onnx writes


class Kind(NamedTuple):
    """An unsigned integer type by its width in bits."""

    width: int

    @property
    def name(self) -> str:
        return f"uint{self.width}"

    @property
    def code(self) -> int | None:
        """Its number in ONNX; None where the installed onnx does not know it."""
        return getattr(TensorProto, self.name.upper(), None)

    def nbytes(self, count: int) -> int:
        """Bytes that `count` numbers take."""
        return (count * self.width + 7) // 8


KINDS = tuple(Kind(width) for width in (2, 4, 8, 16))  # narrow first


def narrowest(bits: int, kinds: Sequence[Kind]) -> Kind:
    """The narrowest of `kinds` that holds numbers of `bits` bits. Raises: ValueError when none does."""
    for kind in kinds:
        if bits <= kind.width:
            return kind
    raise ValueError(f"no integer type of this opset holds {bits} bits; from opset 21 on there are some")


def integers(name: str, numbers: NDArray[np.integer], kind: Kind) -> TensorProto:
    """A tensor of `kind` with the shape of `numbers`; several numbers to a byte have the first in the low bits."""
    flat = numbers.reshape(-1)
    if kind.width < 8:
        per_byte = 8 // kind.width
        padded = np.zeros(-(-len(flat) // per_byte) * per_byte, np.uint8)
        padded[: len(flat)] = flat
        shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(kind.width)
        raw = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    else:
        raw = flat.astype(f"<u{kind.width // 8}")
    return TensorProto(name=name, data_type=kind.code, dims=numbers.shape, raw_data=raw.astype(raw.dtype).tobytes())


def session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A model on the CPU, ready to run; the log of onnxruntime is silent."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ir_version(opset: int) -> int:
    """The version of the file format that an opset needs."""
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


@cache
def runs(opset: int, kind: Kind) -> bool:
    """Whether the installed onnxruntime dequantizes `kind` by rows at `opset`, with the right values."""
    if kind.code is None:
        return False
    numbers = (np.arange(15) * 7 % 2**kind.width).reshape(3, 5)  # rows that end within a byte
    scales = np.array([0.5, 1, 3], np.float32)
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["levels", "scales"], ["values"], axis=0)],
        "probe",
        [helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [3, 5])],
        [integers("levels", numbers, kind)],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version(opset))
    try:
        values = session(model.SerializeToString()).run(None, {"scales": scales})[0]
    except Exception:  # onnxruntime has an exception for every reason, with no common class
        return False
    return bool(np.array_equal(values, numbers * scales[:, None]))


def kinds_at(opset: int) -> tuple[Kind, ...]:
    """The types that can hold levels at `opset`, narrow first; none when onnxruntime does not run it."""
    return tuple(kind for kind in KINDS if runs(opset, kind))


def choose_opset(wanted: Collection[Kind], given: int | None = None) -> int:
    """The oldest opset that has all the wanted types, or of them the most that onnxruntime runs.

    The oldest, so that as many other runtimes as possible read the file. Raises: ValueError when `given`, or all,
    are not run by the installed onnxruntime.
    """
    runnable = [opset for opset in range(LOWEST, onnx.defs.onnx_opset_version() + 1) if kinds_at(opset)]
    if not runnable:
        raise ValueError(f"onnxruntime {onnxruntime.__version__} runs no opset from {LOWEST} on")
    if given is None:
        return max(runnable, key=lambda opset: (len(set(wanted) & set(kinds_at(opset))), -opset))
    if given not in runnable:
        known = f"{runnable[0]} to {runnable[-1]}"
        raise ValueError(f"opset {given}: with onnxruntime {onnxruntime.__version__} it can be {known}")
    return given
