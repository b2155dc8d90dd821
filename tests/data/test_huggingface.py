"""Sets of the datasets library, made here: on disk as the library saves them, and as a folder of Parquet files."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffq_exp.data import StreamLoader, TensorLoader, huggingface, huggingface_text
from diffq_exp.data.huggingface import Rows

library = pytest.importorskip("datasets", reason="no datasets: pip install datasets")

HOW = {"device": "cpu", "batch_size": 4, "seed": 0}


def image(seed, size=(6, 8), mode="RGB"):
    shape = (*size, 3) if mode == "RGB" else size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def rows(seeds, names=("cat", "dog"), labels=None, size=(6, 8), image_column="img"):
    feature = library.ClassLabel(names=list(names)) if names else library.Value("string")
    columns = {image_column: [image(seed, size) for seed in seeds], "label": labels or [s % 2 for s in seeds]}
    return library.Dataset.from_dict(
        columns, features=library.Features({image_column: library.Image(), "label": feature})
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Eight images to train on, four to test on, as `save_to_disk` leaves them."""
    folder = tmp_path_factory.mktemp("saved") / "set"
    library.DatasetDict(train=rows(range(8)), test=rows(range(20, 24))).save_to_disk(str(folder))
    return folder


def load(folder, **changes):
    how = {
        "name": str(folder), "subset": None, "revision": None, "train": "train", "val": None, "test": "test",
        "image": None, "label": None, "image_size": None, "channels": 3, "mean": None, "std": None,
        "max_memory_mb": 100, "crop": 0, "min_scale": 0.5, "flip": False, "val_fraction": 0.0,
    }  # fmt: skip
    return huggingface(**{**how, **HOW, **changes})


def inputs(loader):
    return torch.cat([x for x, _ in loader.epoch(0)])


def test_images_and_classes_are_those_of_the_rows(saved):
    data = load(saved)
    assert data.classes == ["cat", "dog"] and data.shape == (3, 6, 8) and isinstance(data.train, TensorLoader)
    pixels = np.stack([np.asarray(image(seed)) for seed in range(20, 24)]).transpose(0, 3, 1, 2)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (data.mean, data.std))
    torch.testing.assert_close(inputs(data.test), (torch.from_numpy(pixels) / 255 - mean) / std)
    assert torch.cat([y for _, y in data.test.epoch(0)]).tolist() == [0, 1, 0, 1]
    assert (load(saved, val="test").val.examples, load(saved, val_fraction=0.25).val.examples) == (4, 2)


def test_a_set_above_the_limit_is_streamed_and_resumes(saved):
    data = load(saved, max_memory_mb=0, image_size=8)
    assert isinstance(data.train, StreamLoader) and data.classes == ["cat", "dog"]
    whole, again = list(data.train.epoch(2)), list(load(saved, max_memory_mb=0, image_size=8).train.epoch(2, 1))
    assert len(whole) == 2 and torch.equal(whole[1][0], again[0][0])
    assert (
        set(data.digest) == {"train", "test"} and load(saved, max_memory_mb=0, image_size=8).digest == data.digest
    )
    with pytest.raises(ValueError, match=r"^dataset.name=.*to stream it, set dataset.image_size"):
        load(saved, max_memory_mb=0)


def test_a_change_changes_the_digest(tmp_path):
    digests = []
    for at, seeds in enumerate((range(8), [0, 1, 2, 3, 4, 5, 6, 77])):
        folder = tmp_path / str(at)
        library.DatasetDict(train=rows(seeds, labels=[0, 1] * 4), test=rows(range(4))).save_to_disk(str(folder))
        digests += [load(folder).digest, load(folder, max_memory_mb=0, image_size=8).digest]
    for first, second in (digests[::2], digests[1::2]):
        assert first["train"] != second["train"] and first["test"] == second["test"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of Parquet files, which the library takes as it takes a set of the hub."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()
    for part, seeds in (("train", range(8)), ("test", range(20, 24))):
        rows(seeds).to_parquet(str(tmp_path / "set" / f"{part}.parquet"))
    return tmp_path / "set"


def test_files_are_loaded_as_a_set_of_the_hub_is(files, saved):
    ours, theirs = load(files, train="train[:75%]", val="train[75%:]"), load(saved)
    assert (ours.train.examples, ours.val.examples) == (6, 2)
    assert ours.digest["test"] == theirs.digest["test"] and load(files).digest == theirs.digest


def test_only_files_of_the_subset_have_to_number_their_classes_alike(files):
    """The README of a set of several subsets says which files are whose."""
    (files / "cars").mkdir()
    for part in ("train", "test"):
        rows(range(4), ("vw", "bmw")).to_parquet(str(files / "cars" / f"{part}.parquet"))
    named = "".join(
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - {{split: {part}, path: {place}{part}.parquet}}\n" for part in ("train", "test"))
        for name, place in (("pets", ""), ("cars", "cars/"))
    )
    (files / "README.md").write_text(f"---\nconfigs:\n{named}---\n")
    assert [load(files, subset=name).classes for name in ("pets", "cars")] == [["cat", "dog"], ["vw", "bmw"]]


def test_a_saved_set_is_cut_as_one_of_the_hub_is(files, saved):
    for cut in ("train[:75%]", "train[2:-1]", "train[:3]+test[50%:]"):
        ours, theirs = load(saved, train=cut, test=cut), load(files, train=cut, test=cut)
        assert ours.digest == theirs.digest and ours.train.examples in (6, 5)


def test_a_single_split_that_was_saved_is_cut_into_parts(tmp_path):
    rows(range(8)).save_to_disk(str(tmp_path / "set"))
    data = load(tmp_path / "set", train="train[:5]", val="train[5:7]", test="train[7:]")
    assert [part.examples for part in (data.train, data.val, data.test)] == [5, 2, 1]
    with pytest.raises(ValueError, match=r"Unknown split \"test\". Should be one of \['train'\]"):
        load(tmp_path / "set")
    part = rows(range(8)).train_test_split(0.5, shuffle=False)["train"]
    part.info.splits, part._split = None, library.NamedSplit("train[:50%]")
    part.save_to_disk(str(tmp_path / "half"))
    assert load(tmp_path / "half", train="train[:3]", test="train[3:]").train.examples == 3


def test_splits_that_number_their_classes_otherwise_mean_the_same_names(tmp_path, files):
    """The numbers of a split are those of its own order of names."""
    found = library.DatasetDict(train=rows(range(4)), test=rows(range(3), ("dog", "cat"), [0, 1, 0]))
    found["val"] = rows(range(2), None, ["cat", "dog"])
    found.save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved", val="val", label="label")
    assert data.classes == ["cat", "dog"] and torch.cat([y for _, y in data.test.epoch(0)]).tolist() == [1, 0, 1]
    assert torch.cat([y for _, y in data.val.epoch(0)]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="features can't be aligned"):
        load(tmp_path / "saved", train="train+test")
    found["test"] = rows(range(3), ("dog", "bird", "cat"), [0, 2, 1])
    found.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"test, row 2: label 'bird' is none of the 2 classes of train$"):
        load(tmp_path / "other")
    rows(range(3), ("dog", "cat"), [0, 1, 0]).to_parquet(str(files / "test.parquet"))
    with pytest.raises(ValueError, match=r"test.parquet: column 'label' numbers its classes \['dog', 'cat'\], ano"):
        load(files)


def test_other_labels_are_classes_by_their_values(tmp_path):
    found = library.DatasetDict(
        train=rows(range(4), None, ["b", "a", "b", "a"]), test=rows(range(2), None, ["a", "b"])
    )
    found.save_to_disk(str(tmp_path / "set"))
    data = load(tmp_path / "set", label="label")
    assert data.classes == ["a", "b"] and torch.cat([y for _, y in data.test.epoch(0)]).tolist() == [0, 1]
    found["test"] = rows(range(2), None, ["a", "c"])
    found.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="test, row 1: label 'c' is none of the 2 classes"):
        load(tmp_path / "other", label="label")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": "tran"}, r"^dataset.name=.*Unknown split \"tran\". Should be one of \['train', 'test'\]"),
        ({"train": "train[:9"}, r"^dataset.name=.*Unrecognized instruction format: train\[:9$"),
        ({"train": "train[:0]"}, r"set, train\[:0\]: has no rows$"),
        ({"image": "label"}, r"set, train: column 'label' \(ClassLabel\) holds no images$"),
        ({"label": "img"}, r"^train: column 'img' \(Image\) holds no classes$"),
        ({"image": "picture"}, "no column 'picture'; there are img, label"),
        ({"label": "kind"}, "no column 'kind'"),
        ({"channels": 2}, "channels=2 is neither 1"),
    ],
)
def test_what_a_set_lacks_is_named(changes, told, saved):
    with pytest.raises(ValueError, match=told):
        load(saved, **changes)


def test_which_column_is_asked_where_there_are_several_or_none(tmp_path):
    found = library.DatasetDict(train=rows(range(2), None, ["a", "b"]), test=rows(range(2), None, ["a", "b"]))
    found.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(
        ValueError, match=r"dataset.label: which column\? There are: img \(Image\), label \(Value\)"
    ):
        load(tmp_path / "set")


def test_an_example_without_a_label_or_a_whole_image_is_named(tmp_path):
    found = library.DatasetDict(train=rows(range(4)), test=rows(range(2), labels=[0, -1]))
    found.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(ValueError, match="test, row 1: label -1 is none of the 2 classes"):
        load(tmp_path / "set")
    stream = io.BytesIO()
    image(0).save(stream, "PNG")
    broken = {"img": [{"bytes": stream.getvalue()[:60], "path": None}] * 4, "label": [0, 1, 0, 1]}
    found["test"] = library.Dataset.from_dict(broken, features=found["train"].features)
    found.save_to_disk(str(tmp_path / "broken"))
    with pytest.raises(ValueError, match=r"cannot read the image .*test, row 0"):
        load(tmp_path / "broken")


def test_a_row_without_an_image_a_label_or_a_file_is_named(tmp_path):
    columns, features, path = rows(range(4)).to_dict(), rows(range(4)).features, tmp_path / "1.png"
    image(1).save(path)

    def of(name, value):
        changed = {**columns, name: [columns[name][0], value, *columns[name][2:]]}
        return Rows(library.Dataset.from_dict(changed, features=features), "set", "img", "label", ["cat", "dog"], 3)

    with pytest.raises(ValueError, match=r"^set, row 1: label None is none of the 2 classes of train$"):
        of("label", None)
    with pytest.raises(ValueError, match=r"^set, row 1: has no image$"):
        of("img", None)[1]
    found = of("img", str(path))
    assert len(found.encoded(1)) == path.stat().st_size
    path.unlink()
    with pytest.raises(
        ValueError, match=r"^cannot read the image set, row 1: .*1.png \(No such file or directory\)"
    ):
        found.digest()


def test_a_label_that_is_null_is_no_class(tmp_path):
    found = library.DatasetDict(train=rows(range(3), None, ["b", None, "None"]), test=rows(range(1), None, ["b"]))
    found.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(ValueError, match="train, row 1: label None is none of the 2 classes of train"):
        load(tmp_path / "set", label="label")


def test_without_the_library_it_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs its package: pip install .*datasets"):
        load(saved)


def test_a_folder_of_class_folders_is_read_too(tmp_path, monkeypatch):
    """Its rows have paths, and no bytes."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for part, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
        (tmp_path / "set" / part / name).mkdir(parents=True)
        image(1).save(tmp_path / "set" / part / name / "0.png")
    data = load(tmp_path / "set")
    assert data.classes == ["a", "b"] and data.train.examples == 2
    assert set(load(tmp_path / "set", max_memory_mb=0, image_size=8).digest) == {"train", "test"}


def test_a_set_that_is_not_to_be_had_is_told_in_one_line(files):
    with pytest.raises(ValueError, match=r"^dataset.name=no/such: ") as raised:
        load("no/such")
    assert "\n" not in str(raised.value)


# ---- text ---------------------------------------------------------------------------------------------------


def test_text_is_the_bytes_of_its_rows(tmp_path):
    texts = {"train": ["some words", "", "än"] * 5, "test": ["more"] * 4, "validation": ["less"] * 4}
    found = library.DatasetDict({part: library.Dataset.from_dict({"text": rows}) for part, rows in texts.items()})
    found.save_to_disk(str(tmp_path / "set"))
    how = {"name": str(tmp_path / "set"), "subset": None, "revision": None, "train": "train", "test": "test"}
    data = huggingface_text(**how, val="validation", text="text", length=4, **HOW)
    assert data.facts["tokens"] == {"train": 16 * 5, "test": 20, "val": 20} and data.vocabulary == 256
    given = torch.cat([x.flatten() for x, _ in data.val.epoch(0)])
    assert bytes(given.tolist()) == b"less\nless\nless\nless\n"[:-1]
    assert huggingface_text(**how, val=None, text="text", length=4, **HOW).val is None
    cut = {**how, "train": "train[:50%]", "val": "train[50%:]"}
    assert huggingface_text(**cut, text="text", length=4, **HOW).facts["tokens"]["train"] == 16 * 2 + 11 + 1
    found["test"] = library.Dataset.from_dict({"text": ["more", None]})
    found.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="other, test, row 1: column 'text' holds a NoneType, no text"):
        huggingface_text(**{**how, "name": str(tmp_path / "other")}, val=None, text="text", length=4, **HOW)
    with pytest.raises(ValueError, match="no column 'body'; there are text"):
        huggingface_text(**how, val=None, text="body", length=4, **HOW)
