"""Plain files of tensors are what safetensors reads."""

import io

import torch
from safetensors import safe_open
from safetensors.torch import load

from diffq_exp.storage.layout import DTYPES
from diffq_exp.storage.tensor_file import TYPES, write_tensors

TENSORS = {str(dtype): torch.tensor([0, 1, 1]).to(dtype) for dtype in TYPES}
TENSORS |= {
    "a number": torch.tensor(2.5),
    "nothing": torch.zeros(0, 3),
    "größe": torch.arange(6.0).view(2, 3).T,
    "one byte": torch.tensor([7], dtype=torch.uint8),
}


def test_safetensors_reads_tensors_of_every_type_and_shape():
    assert set(TYPES) == set(DTYPES.values())
    file = io.BytesIO()
    write_tensors(file, TENSORS, {"format": "pt"})
    read = load(file.getvalue())
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name


def test_metadata_and_the_place_of_each_tensor(tmp_path):
    """A wide type begins where processors may read it."""
    path = tmp_path / "tensors"
    with path.open("wb") as file:
        write_tensors(file, TENSORS, {"key": "value"})
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"key": "value"}
        assert all(opened.get_tensor(name).data_ptr() % one.element_size() == 0 for name, one in TENSORS.items())
