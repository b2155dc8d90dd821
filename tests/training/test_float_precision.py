"""storage.float=auto: the fewest bits that cost no loss."""

from functools import partial

import pytest
import torch
from helpers.run_configs import TINY, do
from helpers.stored_networks import made_data

from diffq_exp import models, storage
from diffq_exp.stored.network import write_into
from diffq_exp.tasks.classification import Classification
from diffq_exp.training import float_precision
from diffq_exp.training.float_precision import choose_precision
from diffq_exp.training.measure import evaluate


def chosen(model, monkeypatch, **losses):
    """What is chosen where precisions have these losses, 1.0 if not said."""
    tried = []

    def measured(*_given):
        return {"loss": losses.get(tried[-1], 1.0)}

    monkeypatch.setattr(float_precision, "mean_scores", measured)
    stored = lambda precision: tried.append(precision) or storage.stored_model_of(model, precision)  # noqa: E731
    return choose_precision(stored, model, made_data().test, Classification()), tried


def test_the_first_that_is_free(monkeypatch):
    model = models.digits_cnn(num_classes=4, in_channels=1, image_size=8)
    assert chosen(model, monkeypatch, int4=1.1, int5=1.006, int6=1.004) == (
        "int6", ["float32", "int4", "int5", "int6"],
    )  # fmt: skip
    assert chosen(model, monkeypatch, int4=0.9)[0] == "int4"
    every = {f"int{bits}": 2.0 for bits in range(4, 16)}
    assert chosen(model, monkeypatch, **every)[0] == "float16"
    assert chosen(model, monkeypatch, **every, float16=float("nan"))[0] == "float16"


def test_losses_are_those_of_the_network_as_it_would_be_stored():
    torch.manual_seed(0)
    model, fresh = (models.digits_cnn(num_classes=4, in_channels=1, image_size=8).eval() for _ in range(2))
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "norm" in name:
                param.uniform_(-3, 3)
    stored, loader, task = partial(storage.stored_model_of, model), made_data().test, Classification()
    precision = choose_precision(stored, fresh, loader, task)
    losses = {}
    for tried in ("float32", *float_precision.TRIED):
        write_into(fresh, stored(tried))
        losses[tried] = evaluate(fresh, loader, task)["loss"]
    free = [tried for tried in float_precision.TRIED if losses[tried] <= 1.005 * losses["float32"]]
    assert precision == free[0] and losses["int4"] != losses["float32"]


@pytest.mark.parametrize("words", [(), ("target_mb=0.06",)])
def test_by_the_command(words, tmp_path):
    outcome = do(*TINY, "quantizer=rate", "storage.float=auto", "storage.fold=true", *words, root=tmp_path)
    (line,) = (line for line in outcome.lines if "floats are stored as" in line)
    assert outcome.code == 0 and outcome.result["config"]["storage"]["float"] == "auto"
    precision = line.split("floats are stored as ")[1].split(";")[0]
    stored, _ = storage.read(outcome.folder / "model.safetensors")
    grids = {int(tensor.bits) for name, tensor in stored.tensors.items() if name.startswith("norm")}
    assert precision.startswith("int") and grids == {int(precision.removeprefix("int"))}
    if words:
        assert outcome.result["target_met"] and int(precision.removeprefix("int")) <= 8
