"""The files of a network in parts, and what stands for their content."""

import hashlib
import json
import os

import pytest

from diffq_exp.command.network_files import content_of, network_files


def index(folder, names, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"weight_map": {str(number): each for number, each in enumerate(names)}}))
    return folder / name


def test_a_file_is_itself(tmp_path):
    file = tmp_path / "net.pth"
    file.write_bytes(b"content")
    assert network_files(file) == [file]
    assert content_of(file) == hashlib.sha256(b"content").hexdigest()[:16]  # as before there were parts


def test_a_folder_has_one_file_or_an_index(tmp_path):
    with pytest.raises(ValueError, match="none of model"):
        network_files(tmp_path)
    for name in ("pytorch_model.bin", "model.safetensors", "a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    assert network_files(tmp_path) == [tmp_path / "model.safetensors"]
    of_index = index(tmp_path, ["b", "a", "b"])
    assert network_files(tmp_path) == network_files(of_index) == [tmp_path / "a", tmp_path / "b"]


def test_the_content_of_parts(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    index(tmp_path, ["a", "b"])
    before = content_of(tmp_path)
    (tmp_path / "b").write_bytes(b"c")
    os.utime(tmp_path / "b", ns=(1, 1))
    assert content_of(tmp_path) != before and len(before) == 16


@pytest.mark.parametrize("names", [["../a"], ["/etc/passwd"], [], [3], ["gone"]])
def test_an_index_names_files_beside_it(names, tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        network_files(index(tmp_path, names))


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', "[" * 100_000])
def test_what_is_no_index(text, tmp_path):
    file = tmp_path / "x.index.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="no index"):
        network_files(file)
