"""What a kB of each tensor is worth."""

import pytest
import torch
from helpers.stored_networks import made_data

from diffq_exp import models, storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer
from diffq_exp.storage.ledger import ledger
from diffq_exp.stored.coarser import coarser
from diffq_exp.stored.network import write_into
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.measure import evaluate
from diffq_exp.training.sensitivity import Sensitivity, sensitivities, table


def network():
    return models.digits_cnn(num_classes=4, in_channels=1, image_size=8).eval()


@pytest.mark.parametrize(
    ("quantizer", "coding"),
    [
        (RateQuantizer, "packed"),
        (DiffQuantizer, "packed"),
        *(pytest.param(kind, "auto", marks=pytest.mark.long) for kind in (RateQuantizer, DiffQuantizer, LSQ)),
        pytest.param(LSQ, "packed", marks=pytest.mark.long),
    ],
)
def test_it_is_the_loss_with_one_bit_less_over_the_bytes_that_this_saves(quantizer, coding, tmp_path):
    torch.manual_seed(0)
    owner, plain, task, loader = network(), network(), Classification(), made_data().test
    stored = storage.stored_model_of(quantizer(owner, min_size=0.0001), "int8")
    write_into(plain, stored)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    rows = {row.name: row for row in sensitivities(plain, stored, loader, task, coding)}
    assert rows.keys() == stored.tensors.keys() and len(rows) > 3
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    storage.save(stored, tmp_path / "file", coding=coding)
    bytes_of = {row.name: row.levels + row.bits + row.models for row in ledger(tmp_path / "file")}
    assert all(row.bytes == bytes_of[name] for name, row in rows.items())
    name = "conv2.weight"
    less = coarser(stored.tensors[name])
    with torch.no_grad():
        less.write(plain.conv2.weight)
    expected = evaluate(plain, loader, task)["loss"] - evaluate(owner, loader, task)["loss"]
    assert rows[name].loss == pytest.approx(expected, abs=1e-5) and rows[name].loss != 0
    assert rows[name].bits == pytest.approx(float(stored.tensors[name].bits.float().mean()))
    if coding == "packed":
        bits = {RateQuantizer: 0, DiffQuantizer: 1, LSQ: 0}[quantizer]  # the levels of a step keep their width
        assert rows[name].saved == pytest.approx(bits * plain.conv2.weight.numel() / 8, rel=0.02)
    else:
        assert rows[name].saved > 0


def test_the_table_begins_with_what_is_worth_most():
    rows = [
        Sensitivity("a", 2.0, 1000, 0, 0.5),
        Sensitivity("b", 3.5, 2000, 512, 0.25),
        Sensitivity("c", 8, 10, 5, -1.0),
    ]
    assert rows[1].loss_per_kb == 0.5 and rows[0].loss_per_kb is None
    lines = [line.split() for line in table(rows).splitlines()[1:]]
    assert lines == [
        ["b", "3.5", "2,000", "-512", "+0.2500", "+0.5"],
        ["c", "8", "10", "-5", "-1.0000", "-205"],
        ["a", "2", "1,000", "0", "+0.5000", "-"],
    ]
