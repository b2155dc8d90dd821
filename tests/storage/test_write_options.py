"""storage.coding, storage.float and storage.fold of a run: what is measured is what the file holds."""

import pytest
import torch
from helpers.run_configs import TINY, ask, do

from diffq_exp import storage
from diffq_exp.command.signature import signature
from diffq_exp.models import digits_cnn
from diffq_exp.quant import RateQuantizer
from diffq_exp.runs.build import build_data
from diffq_exp.runs.loading import stored_config

WORDS = (*TINY, "storage.coding=auto", "quantizer=diffq", "min_size=0.0001", "group_size=8")


SMALL = ("storage.float=int8", "storage.fold=true", "exclude=[norm*]")


@pytest.mark.parametrize("words", [(), ("storage.coding=packed",), SMALL])
def test_sizes_and_accuracy_are_those_of_the_file(words, tmp_path):
    outcome = do(*WORDS, *words, root=tmp_path)
    assert outcome.code == 0, outcome.text
    path, sizes = outcome.folder / "model.safetensors", outcome.result["size_mb"]
    stored, _ = storage.read(path)
    assert sizes["file"] == pytest.approx(path.stat().st_size / 2**20)
    assert sizes["packed"] == pytest.approx(stored.packed_bytes() / 2**20)
    halves = {tensor.dtype for tensor in (*stored.floats.values(), *stored.buffers.values())} & {torch.float16}
    assert bool(halves) == (words == SMALL)
    assert (words == SMALL) == all(
        bool((value == 0).all()) for name, value in stored.buffers.items() if name.endswith("running_mean")
    )
    codings = {tensor.coded.coding for tensor in storage.open_stored(path).contents.tensors.values()}
    assert (words == ("storage.coding=packed",)) == (codings == {("packed", "packed")})


def test_a_network_that_is_stored_small_has_a_header_and_an_index_of_few_bytes(tmp_path):
    """As `quantizer=rate storage.float=int8 storage.fold=true` stores the digits."""
    model = digits_cnn(num_classes=10, in_channels=1, image_size=8).eval()
    quantizer = RateQuantizer(model, step=0.3, min_size=0)
    cfg = ask("quantizer=rate", "storage.float=int8", "storage.fold=true").cfg
    choices = {"model": "digits_cnn", "dataset": "digits", "task": "classification", "quantizer": "rate"}
    data = build_data(cfg, torch.device("cpu"))
    storage.save(quantizer, tmp_path / "m", stored_config(cfg, choices, data, model), float="int8", fold=True)
    assert storage.open_stored(tmp_path / "m").metadata <= 450


def test_they_are_part_of_the_signature():
    options = ((), ("storage.coding=packed",), ("storage.float=float16",), ("storage.float=int8",), SMALL)
    assert len({signature(ask(*WORDS, *words).cfg) for words in options}) == 5
    assert signature(ask(*WORDS, "storage.fold=null").cfg) == signature(ask(*WORDS).cfg)
