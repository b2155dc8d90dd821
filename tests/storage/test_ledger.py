"""Every byte of a file is told, once."""

import pytest
import torch
from helpers.storage_models import WAYS, Mixed, as_version2, attached, diffq, network, wide
from torch import nn

from diffq_exp import storage
from diffq_exp.evaluate import main
from diffq_exp.quant import RateQuantizer, UniformQuantizer
from diffq_exp.storage.ledger import COLUMNS, ledger, table


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("build", "coding"), [(Mixed, "packed"), (wide, "auto")])
def test_the_sum_is_the_size_of_the_file(build, way, coding, tmp_path):
    model = build() if build is wide else network(build)
    path = tmp_path / "model.safetensors"
    size = storage.save(attached(way, model), path, {"note": "x" * 50}, coding=coding)
    *rows, total = ledger(path)
    assert total.total == size == path.stat().st_size
    for kind in COLUMNS:
        assert getattr(total, kind) == sum(getattr(row, kind) for row in rows), kind
    assert {row.name for row in rows[:-1]} == set(storage.read(path)[0].values()) - set(storage.read(path)[0].tied)


def test_each_kind_stands_in_its_column(tmp_path):
    path = tmp_path / "model.safetensors"
    storage.save(diffq(network(), exclude=("*.bias",)), path, coding="packed")
    rows = {row.name: row for row in ledger(path)}
    stored = storage.read(path)[0]
    for name, tensor in stored.tensors.items():
        row = rows[name]
        assert row.scales == 8 and row.models == row.floats == row.buffers == 0
        assert row.levels >= tensor.levels.numel() * int(tensor.bits.min()) / 8 and row.bits >= 1
    for name, tensor in stored.floats.items():
        assert rows[name].floats == rows[name].total == tensor.nbytes
    assert stored.buffers.keys() == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    for name, tensor in stored.buffers.items():  # a counter stands in the index
        assert rows[name].buffers == rows[name].total == (tensor.nbytes if tensor.dim() else 0)


def test_a_file_of_format_2(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(as_version2(storage.serialize(diffq(network()))))
    rows = {row.name: row for row in ledger(path)}
    assert rows["total"].total == path.stat().st_size and rows["norm.num_batches_tracked"].buffers == 8


def test_models_cost_where_entropy_is_coded(tmp_path):
    path = tmp_path / "model.safetensors"
    storage.save(diffq(wide()), path)
    assert any(row.models for row in ledger(path)[:-1])


def test_zeros_at_the_end_are_padding(tmp_path):
    """Of a network next to whose entries all are equal."""
    model = nn.Linear(1100, 1100, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[0, 0] = 0.0
    path = tmp_path / "model.safetensors"
    size = storage.save(UniformQuantizer(model, bits=1), path)
    own = ledger(path)[-2]
    assert own.padding > 2_000 and ledger(path)[-1].total == size
    assert storage.read(path)[0].tensors["weight"].levels.numel() == 1100**2


def test_the_command_prints_it(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    model = nn.Sequential()
    model.add_module("odd\n\x1b[31mname", nn.Linear(3, 3))
    size = storage.save(model, path)
    assert main([str(path), "--ledger"]) == 0
    out = capsys.readouterr().out
    assert out == table(ledger(path)) + "\n"
    assert f"{size:,}" in out.splitlines()[-1] and "\x1b" not in out
    assert len(out.splitlines()) == 4 + len(ledger(path)) - 1
    assert main([str(tmp_path / "absent"), "--ledger"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rows_of_zeros_are_counted(tmp_path):
    model = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3))
    with torch.no_grad():
        model[0].weight[[1, 3]] = 0
    RateQuantizer(model, step=0.1).no_optimizer()
    storage.save(model, tmp_path / "model.safetensors")
    rows = {row.name: row.zero_rows for row in ledger(tmp_path / "model.safetensors")}
    assert rows == {**dict.fromkeys(rows, ""), "0.weight": "2 of 5 rows zero"}
    lines = table(ledger(tmp_path / "model.safetensors")).splitlines()
    assert [line.endswith("2 of 5 rows zero") for line in lines if "weight" in line] == [True, False]
    assert storage.read(tmp_path / "model.safetensors")[0].zero_rows() == {"0.weight": [2, 5]}
