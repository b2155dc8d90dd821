"""Networks that a run begins from or follows, which were trained on other data than the run has."""

import copy

import pytest
import torch
from helpers.run_configs import TINY, do, listening
from helpers.run_folders import COMMIT
from helpers.stored_networks import config, made_data, network, store
from omegaconf import OmegaConf
from torch import nn

from diffq_exp import models, storage
from diffq_exp.runs import machine
from diffq_exp.runs.sources import as_teacher, match_start, trained_on
from diffq_exp.training.distillation import Translated

OTHER = {"mean": [0.2], "std": [0.5]}
NAMES = [f"pattern {label}" for label in range(4)]


def stored(folder, **input):
    conf = config()
    conf["input"] |= input
    return store(folder, conf)


def asked(source, after):
    return OmegaConf.create({"init_from": str(source), "quantizer": {"training": {"after": after}}})


def matched(source, after=False):
    """The data of a run after they were compared, and what was told."""
    data = copy.deepcopy(made_data())
    with listening() as lines:
        match_start(asked(source, after), data)
    return data, lines


def test_where_the_description_stands(tmp_path):
    path = stored(tmp_path / "run", **OTHER)
    for source in (path, tmp_path / "run", tmp_path / "run" / "checkpoint.pt"):
        assert trained_on(source)["mean"] == [0.2]
    for other in (tmp_path / "checkpoint.pt", tmp_path / "run" / "resnet18.pth"):  # the latter only lies there
        assert trained_on(other) == {}


def test_equal_data_are_passed_over(tmp_path):
    for after in (True, False):
        assert matched(stored(tmp_path), after)[1] == []
    mean = made_data().mean[0] + 1e-4  # of another draw of the same images
    assert matched(stored(tmp_path, mean=[mean]))[1] == []


def test_a_network_that_is_only_quantized_keeps_its_statistics(tmp_path):
    path = stored(tmp_path, **OTHER)
    data, lines = matched(path, after=True)
    assert data.mean == (0.2,) and data.std == (0.5,) and lines == []
    data, lines = matched(path)  # trained further, it gets used to those of the data
    assert data.mean == made_data().mean
    assert [line.partition(": ")[2][:36] for line in lines] == [
        "the network was trained with mean [0",
        "the network was trained with std [0.",
    ]


def test_a_network_of_other_classes_is_trained_further_with_a_warning_but_not_only_quantized(tmp_path):
    path = stored(tmp_path, classes=[*NAMES[:3], "else"])
    told = "the classes differ: only the network has ['else']; only the data set has ['pattern 3']"
    assert matched(path)[1] == [f"init_from={path}: {told}"]
    with pytest.raises(ValueError, match="only the data set has"):
        matched(path, after=True)


def test_a_run_of_ptq_stores_the_statistics_that_it_was_measured_with(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "git_state", lambda: (COMMIT, False))
    torch.manual_seed(0)
    plain = models.digits_cnn(num_classes=4, in_channels=1, image_size=8)
    conf = config()
    conf["input"] |= OTHER
    storage.save(plain, tmp_path / "float.safetensors", conf)
    outcome = do(*TINY, "quantizer=ptq", f"init_from={tmp_path}/float.safetensors", root=tmp_path)
    assert outcome.code == 0, outcome.text
    assert storage.read(outcome.folder / "model.safetensors")[1]["input"] == conf["input"]


def test_a_teacher_gets_its_own_statistics_and_gives_the_classes_of_the_data(tmp_path):
    data = made_data()
    inputs, _ = next(data.test.epoch(0))
    assert as_teacher(network(), data, stored(tmp_path)) is network()
    turned = [3, 2, 1, 0]
    teacher = as_teacher(network(), data, stored(tmp_path, **OTHER, classes=[NAMES[at] for at in turned]))
    pixels = inputs * data.std[0] + data.mean[0]
    expected = network()((pixels - 0.2) / 0.5)[:, turned]
    assert isinstance(teacher, Translated) and torch.allclose(teacher(inputs), expected, atol=1e-5)


def test_a_teacher_of_more_classes_serves_and_one_that_lacks_a_class_does_not(tmp_path):
    data = made_data()
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    teacher = as_teacher(wide, data, stored(tmp_path, classes=["x", *NAMES, "y"]))
    inputs, _ = next(data.test.epoch(0))
    assert torch.equal(teacher(inputs), wide(inputs)[:, 1:5])
    path = stored(tmp_path, classes=[*NAMES[:3], "else"])
    with pytest.raises(ValueError, match=r"^teacher=.*only the network has \['else'\]; only the data set has"):
        as_teacher(wide, data, path)
    with pytest.raises(ValueError, match=r"^teacher=.*needs? a number"):
        as_teacher(wide, data, stored(tmp_path, mean=[0.1, 0.2]))


def test_a_run_with_a_teacher_of_other_classes_fails_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "git_state", lambda: (COMMIT, False))
    path = stored(tmp_path / "source", classes=[*NAMES[:3], "else"])
    outcome = do(*TINY, f"teacher={path}", root=tmp_path)
    assert outcome.code == 2 and "only the data set has ['pattern 3']" in outcome.lines[-1]
