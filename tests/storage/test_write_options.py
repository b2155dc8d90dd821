"""storage.coding and storage.float of a run: what is measured is what the file holds."""

import pytest
import torch
from helpers.run_configs import TINY, ask, do

from diffq_exp import storage
from diffq_exp.command.signature import signature

WORDS = (*TINY, "quantizer=diffq", "min_size=0.0001", "group_size=8")


@pytest.mark.parametrize("words", [(), ("storage.coding=packed",), ("storage.float=float16",)])
def test_sizes_and_accuracy_are_those_of_the_file(words, tmp_path):
    outcome = do(*WORDS, *words, root=tmp_path)
    assert outcome.code == 0, outcome.text
    path, sizes = outcome.folder / "model.safetensors", outcome.result["size_mb"]
    stored, _ = storage.read(path)
    assert sizes["file"] == pytest.approx(path.stat().st_size / 2**20)
    assert sizes["packed"] == pytest.approx(stored.packed_bytes() / 2**20)
    halves = {tensor.dtype for tensor in (*stored.floats.values(), *stored.buffers.values())} & {torch.float16}
    assert bool(halves) == (words == ("storage.float=float16",))
    codings = {tensor.coded.coding for tensor in storage.open_stored(path).contents.tensors.values()}
    assert (words == ("storage.coding=packed",)) == (codings == {("packed", "packed")})


def test_they_are_part_of_the_signature():
    options = ((), ("storage.coding=packed",), ("storage.float=float16",))
    assert len({signature(ask(*WORDS, *words).cfg) for words in options}) == 3
