"""Quantized weights as ONNX operators: the values of `Stored`, in integers as narrow as said."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from diffq_exp.onnx import integers as onnx_types
from diffq_exp.onnx.integers import KINDS, Kind, choose_opset, integers, ir_version, kinds_at, narrowest, session
from diffq_exp.onnx.weights import wanted_kinds, weight_part
from diffq_exp.quant import Stored

NEWEST = choose_opset(KINDS)
ALL = kinds_at(NEWEST)
UINT2, UINT4, UINT8, UINT16 = KINDS


def made(shape, group_size, pool, low=-1.0, high=2.0, seed=0, top=None, dtype=torch.float32) -> Stored:
    """A tensor of random levels; the groups take turns in the widths of `pool`, shuffled."""
    source = np.random.default_rng(seed)
    entries = int(np.prod(shape))
    groups = -(-entries // (group_size or entries))
    bits = source.permutation(np.resize(pool, groups)).astype(np.uint8)
    highest = 2.0 ** np.repeat(bits, group_size or entries)[:entries] - 1 if top is None else top
    levels = np.rint(source.random(entries) * highest).astype(np.int16) * (low != high)
    scales = torch.tensor([low, high], dtype=torch.float32)
    return Stored("minmax", shape, dtype, group_size, torch.from_numpy(levels), torch.from_numpy(bits), scales, top)


def step(shape, bits, size=0.37) -> Stored:
    """Signed levels of one step, the lowest and highest among them."""
    entries = int(np.prod(shape))
    levels = np.random.default_rng(bits).integers(0, 2**bits, entries).astype(np.int16)
    levels[:2] = [0, 2**bits - 1][:entries]
    width = torch.tensor([bits], dtype=torch.uint8)
    return Stored("step", shape, torch.float32, 0, torch.from_numpy(levels), width, torch.tensor([size]))


def expected(stored) -> np.ndarray:
    """The values as the documentation of `Stored` has them, in float64."""
    levels = stored.levels.double().numpy()
    size = stored.group_size or len(levels)
    bits = np.repeat(stored.bits.double().numpy(), size)[: len(levels)]
    if stored.grid == "step":
        values = np.where(bits > 0, levels - 2 ** (bits - 1), 0) * float(stored.scales[0])
    else:
        low, high = stored.scales.double().numpy()
        tops = np.maximum(2**bits - 1 if stored.top is None else stored.top, 1)
        values = np.where(bits > 0, levels / tops * (high - low) + low, np.clip(0, low, high))
    return values.reshape(stored.shape)


def computed(stored, opset=NEWEST, code=TensorProto.FLOAT):
    """What onnxruntime computes of the operators, and these."""
    part = weight_part("w", stored, kinds_at(opset), code)
    output = helper.make_tensor_value_info("w", code, stored.shape)
    graph = helper.make_graph(part.nodes, "one", [], [output], part.constants)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version(opset))
    onnx.checker.check_model(model, full_check=True)
    return session(model.SerializeToString()).run(None, {})[0], part


def levels_of(part) -> dict[str, np.ndarray]:
    """The levels of a part by the name of their type in ONNX."""
    constants = {one.name: one for one in part.constants if one.name.startswith("w/levels_")}
    return {TensorProto.DataType.Name(one.data_type): numpy_helper.to_array(one) for one in constants.values()}


SHAPES = [(5, 7), (3, 4, 3, 3), (1,), (), (64, 33)]
POOLS = {
    "4": [4], "15": [15], "1, 2": [1, 2], "5 to 8": [5, 6, 7, 8], "0 to 15": list(range(16)), "0 or 3": [0, 3],
    "0": [0], "1 or 9": [1, 9], "9 to 15": list(range(9, 16)),
}  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("group_size", [0, 1, 3, 8, 100])
def test_values(group_size, pool):
    for shape in SHAPES:
        for low, high in ((-1, 2), (0.5, 0.75), (-3, -1), (2, 2)):
            stored = made(shape, group_size, POOLS[pool], low, high)
            values, _ = computed(stored)
            assert values.shape == shape and values.dtype == np.float32
            assert np.abs(values - expected(stored)).max() < 1e-6
            assert np.abs(values - stored.values().numpy()).max() < 1e-6


@pytest.mark.parametrize("bits", range(0, 16))
def test_signed_levels_are_exact(bits):
    for shape in SHAPES:
        stored = step(shape, bits)
        assert np.array_equal(computed(stored)[0], stored.values().numpy())


@pytest.mark.parametrize("top", [1, 4, 10, 22000])
def test_fractional_widths(top):
    stored = made((6, 7), 0, [int(top).bit_length()], top=top)
    stored.levels[5] = top
    values, _ = computed(stored)
    assert np.abs(values - expected(stored)).max() < 1e-6
    assert values.max() == pytest.approx(2, abs=1e-6)  # the highest level is the end of the range


@pytest.mark.parametrize("opset", [21, NEWEST])
def test_every_group_has_the_narrowest_type_that_holds_it(opset):
    pool = list(range(16))
    stored = made((640,), 8, pool)
    _, part = computed(stored, opset)
    found = levels_of(part)
    kinds = kinds_at(opset)
    rows = stored.levels.numpy().reshape(80, 8)
    for kind in kinds:
        chosen = [bits > 0 and narrowest(bits, kinds) == kind for bits in stored.bits.tolist()]
        assert np.array_equal(found.pop(kind.name.upper()).astype(int), rows[chosen])
        assert part.level_bytes[kind] == sum(chosen) * 8 * kind.width / 8
    assert found == {}  # and nothing of groups without levels
    assert part.packed_bytes == sum(stored.bits.tolist())
    assert part.table_bytes == 40  # half a byte a group


def test_without_two_bits_there_are_four():
    stored = made((64,), 8, [1, 2])
    assert set(levels_of(computed(stored, 21)[1])) == {"UINT4"}
    assert set(levels_of(computed(stored)[1])) == {"UINT2"} or UINT2 not in ALL


def test_one_width_needs_no_table():
    for group_size in (0, 1, 8):
        _, part = computed(made((37,), group_size, [5]))
        assert part.table_bytes == 0 and {kind.name: n for kind, n in part.level_bytes.items()} == {"uint8": 37}
        assert part.packed_bytes == 24  # 37 times 5 bits
        assert sum(len(one.raw_data) for one in part.constants) == 37 + 4 + 4 + 8  # scale, low, shape


def test_groups_without_levels_take_no_bytes_of_them():
    values, part = computed(made((3, 5), 4, [0], -1, 2))
    assert part.level_bytes == {} and part.packed_bytes == 0 and not values.any()
    assert (computed(made((3, 5), 4, [0], 0.5, 2))[0] == 0.5).all()
    assert (computed(made((3, 5), 4, [0], -2, -0.5))[0] == -0.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_rounded_as_they_are_stored(dtype):
    stored = made((9, 5), 4, [3, 7, 12], dtype=dtype)
    seen = stored.values()
    values, _ = computed(stored)  # of a network in float32
    allowed = 1e-6 + 4 * torch.finfo(dtype).eps * (dtype != torch.float64)
    assert np.abs(values - seen.float().numpy()).max() <= allowed
    assert np.array_equal(values, torch.from_numpy(values).to(dtype).float().numpy()) or dtype == torch.float64
    if dtype != torch.bfloat16:  # which numpy does not know
        code = helper.np_dtype_to_tensor_dtype(seen.numpy().dtype)
        own, _ = computed(stored, code=code)
        assert own.dtype == seen.numpy().dtype and np.array_equal(own.astype(np.float32), values)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 4), (0,), (7, 1)])
def test_onnx_reads_the_integers(kind, shape):
    if kind.code is None:
        pytest.skip(f"this onnx has no {kind.name}")
    numbers = np.random.default_rng(0).integers(0, 2**kind.width, shape)
    tensor = integers("x", numbers, kind)
    assert len(tensor.raw_data) == kind.nbytes(numbers.size)
    assert np.array_equal(numpy_helper.to_array(tensor).astype(int), numbers)


# ---- the opset ------------------------------------------------------------------------------------------------


def test_the_oldest_opset_with_what_is_wanted():
    assert choose_opset([]) == choose_opset([UINT8]) == onnx_types.LOWEST
    assert choose_opset([UINT4]) == choose_opset([UINT8, UINT16]) == 21
    assert wanted_kinds(made((8,), 1, [3, 5, 14]), KINDS) == {UINT4, UINT8, UINT16, UINT2}  # three widths: two bits
    assert wanted_kinds(made((8,), 0, [3]), KINDS) == {UINT4}


@pytest.fixture
def older_runtime(monkeypatch):
    """As an onnxruntime that ends at opset 21 and knows no type under 8 bits."""
    monkeypatch.setattr(
        onnx_types, "runs", lambda opset, kind: opset <= 21 and kind.width >= 8 and (kind.width == 8 or opset == 21)
    )


def test_an_older_runtime(older_runtime):
    assert choose_opset([UINT2, UINT4]) == onnx_types.LOWEST
    assert choose_opset([UINT2, UINT16]) == 21
    assert kinds_at(21) == (UINT8, UINT16)
    with pytest.raises(ValueError, match=r"opset 25: .* can be 18 to 21"):
        choose_opset([UINT2], 25)


def test_wide_levels_are_refused_where_no_type_holds_them():
    with pytest.raises(ValueError, match="12 bits"):
        weight_part("w", made((8,), 0, [12]), kinds_at(20), TensorProto.FLOAT)


def test_what_the_runtime_does_not_run_is_not_taken():
    assert onnx_types.runs(20, UINT8) and not onnx_types.runs(20, UINT4)
    assert not onnx_types.runs(21, Kind(3))  # no such type


@pytest.mark.parametrize("grid", ["minmax", "step"])
@pytest.mark.parametrize("bits", [0, 1, 3, 9])
def test_a_scale_for_each_channel(grid, bits):
    shape = (5, 3, 2)
    levels = torch.from_numpy(np.random.default_rng(bits).integers(0, 2**bits, 30).astype(np.int16))
    low_and_high = torch.tensor([[-1.0, 2.0], [0.5, 0.75], [-3.0, -1.0], [2.0, 2.0], [-1e-3, 1e-3]])
    scales = low_and_high.view(-1) if grid == "minmax" else torch.tensor([0.37, 1e-3, 20.0, 1.0, 0.5])
    stored = Stored(grid, shape, torch.float32, 0, levels, torch.tensor([bits], dtype=torch.uint8), scales)
    rows = [
        Stored(grid, (1, 3, 2), torch.float32, 0, levels[6 * row : 6 * row + 6], stored.bits, own)
        for row, own in enumerate(scales.view(5, -1))
    ]
    assert np.abs(computed(stored)[0] - np.concatenate([expected(row) for row in rows])).max() < 1e-5
    assert torch.equal(stored.values(), torch.cat([row.values() for row in rows]))
