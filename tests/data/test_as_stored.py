"""A data set that is prepared as the inputs of a stored network were."""

import pytest
import torch

from diffq_exp.data import from_tensors
from diffq_exp.data.as_stored import differences, follow, places
from diffq_exp.data.text import TextData, Windows

TRAINED = {"shape": [1, 2, 2], "mean": [0.5], "std": [0.25], "classes": ["a", "b", "c"]}


def images(classes, mean=(0.1,), std=(0.2,), val_fraction=0.0):
    """2 images of each class in each part, all pixels of class k are 10 k."""
    targets = torch.arange(len(classes)).repeat(2)
    part = (10 * targets.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).clone(), targets)
    return from_tensors(
        train=part, test=part, classes=classes, name="made", mean=mean, std=std, device="cpu", batch_size=8,
        seed=0, val_fraction=val_fraction,
    )  # fmt: skip


def batch(loader):
    (found,) = loader.epoch(0)
    return found


def test_nothing_differs():
    data = images(["a", "b", "c"], (0.5,), (0.25,))
    before = batch(data.test)
    assert differences(data, TRAINED) == {} and follow(data, TRAINED) == [] and places(data, TRAINED) is None
    assert all(torch.equal(left, right) for left, right in zip(before, batch(data.test), strict=True))


def test_the_networks_statistics_take_the_place_of_the_data_sets():
    data = images(["a", "b", "c"], val_fraction=0.5)
    assert follow(data, TRAINED) == []
    expected = batch(images(["a", "b", "c"], (0.5,), (0.25,)).test)
    assert torch.equal(batch(data.test)[0], expected[0])
    for loader in (data.train, data.val, data.test):
        inputs, targets = batch(loader)
        assert torch.allclose(inputs[:, 0, 0, 0], (10 * targets / 255 - 0.5) / 0.25)
    assert (data.mean, data.std, data.input) == ((0.5,), (0.25,), TRAINED)


def test_a_class_has_the_number_that_the_network_has_for_its_name():
    data = images(["b", "c"])
    (told,) = follow(data, TRAINED)
    assert told == "the classes differ: only the network has ['a']"
    assert batch(data.test)[1].tolist() == [1, 2, 1, 2] and sorted(batch(data.train)[1].tolist()) == [1, 1, 2, 2]
    assert data.classes == ["a", "b", "c"] and data.model_arguments["num_classes"] == 3
    (told,) = follow(images(["c", "a", "b"]), TRAINED)
    assert told == "the classes differ: the same names in another order"


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["a", "b", "z"], "only the network has ['c']; only the data set has ['z']"),
        (["a", "b", "c", "d"], "only the data set has ['d']"),
    ],
)
def test_a_class_that_the_network_lacks_is_named(classes, told):
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        follow(images(classes), TRAINED)
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        places(images(classes), TRAINED)


def test_where_the_outputs_for_a_subset_are():
    assert places(images(["c", "a"]), TRAINED) == [2, 0]


def test_another_size_of_the_images_is_told():
    (told,) = follow(images(["a", "b", "c"]), {**TRAINED, "shape": [1, 4, 4]})
    assert told == "the network was trained with shape [1, 4, 4], the data set has [1, 2, 2]"


@pytest.mark.parametrize("wrong", [{"mean": [0.5, 0.1]}, {"mean": None}, {"std": [0.0]}, {"mean": ["x"]}])
def test_statistics_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError):
        follow(images(["a", "b", "c"]), {**TRAINED, **wrong})
    with pytest.raises(ValueError):
        follow(images(["a", "b", "c"]), {**TRAINED, "classes": 3})


def test_classes_that_are_no_names_are_told_and_many_take_no_time():
    with pytest.raises(ValueError, match="the network's classes are 3, no list"):
        follow(images(["a"]), {"classes": 3})
    with pytest.raises(
        ValueError, match=r"only the network has \['1', \"{'b': 2}\"\]; only the data set has \['z'\]"
    ):
        follow(images(["z"]), {"classes": [1, {"b": 2}]})
    names = [f"{number:06}" for number in range(50_000)]
    assert places(images(names[-3:]), {"classes": names}) == [49_997, 49_998, 49_999]
    assert follow(images(names[-3:]), {"classes": names})[0].startswith("the classes differ: only the network has")


def test_another_vocabulary_is_refused():
    tokens = torch.arange(40) % 7
    data = TextData("t", vocabulary=7, windows=Windows(4, 2, "cpu", 0), train=tokens, val=None, test=tokens)
    with pytest.raises(ValueError, match="trained with vocabulary 9, the data set has 7"):
        follow(data, {**data.input, "vocabulary": 9})
    assert follow(data, data.input) == []


def test_a_loader_that_cannot_follow_is_named():
    data = images(["a", "b", "c"])

    class Bare:
        examples, batch_size = 1, 1

    data.test = Bare()
    with pytest.raises(ValueError, match="Bare has no normalise_by"):
        follow(data, TRAINED)
