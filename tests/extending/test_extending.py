"""The examples beside this file, copied to a folder of their own: they train, store and reload by the command."""

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers.run_configs import TINY, listening, rows_of
from torch import nn

from diffq_exp import storage, train
from diffq_exp.command.compose import composer
from diffq_exp.quant import DiffQuantizer
from diffq_exp.runs.loading import load_model

HERE = Path(__file__).parent
MODULES = ("clipping", "triangular", "root_mean_square")
SMALL = (*TINY, "min_size=0.001", "epochs=10", "optimizer=adam", "lr=0.01")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A user's folder, outside the package, in which the command is typed."""
    shutil.copytree(HERE, tmp_path / "mine", ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def finished(*typed):
    """Run the command; -> the folder of the run, and its result."""
    composer.cache_clear()
    before = set(Path("outputs").glob("*-*"))
    with listening() as lines:
        code = train.main(["--config-dir", ".", *SMALL, *typed])
    assert code == 0, lines
    (run,) = set(Path("outputs").glob("*-*")) - before
    return run, json.loads((run / "result.json").read_text())


# ---- a quantizer ------------------------------------------------------------------------------------------------


def test_clipping_trains_and_its_file_reloads():
    run, result = finished("quantizer=clipping", "bits=3")
    assert run.name.startswith("synthetic-digits_cnn-clipping-") and result["bits"]["mean"] == 3
    assert result["test"]["accuracy"] > 0.5  # chance is 0.25
    assert rows_of(run)[-1]["train"]["loss"] < 0.7 * rows_of(run)[0]["train"]["loss"]
    stored, _ = storage.read(run / "model.safetensors")
    assert stored.method == "clipping" and stored.tensors
    model, clipping = load_model(run), import_module("clipping")
    weights = dict(model.named_parameters())
    for name, tensor in stored.tensors.items():
        assert len(weights[name].unique()) <= 8 and tensor.scales[0] <= weights[name].min()
    quantizer = clipping.ClippingQuantizer(model, bits=3, min_size=0.001)
    storage.load(run / "model.safetensors", model)
    for name, tensor in stored.tensors.items():
        ends = [quantizer.learned()[name + suffix] for suffix in ("_low", "_high")]
        assert torch.equal(torch.stack(ends), tensor.scales)
        assert torch.equal(quantizer.stored_model().value(name), tensor.values())


def test_each_end_of_the_range_learns_at_its_own_rate():
    run, _ = finished("quantizer=clipping", "quantizer.training.lr._low=0", "epochs=2")
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    torch.manual_seed(0)
    moved = {"_low": 0, "_high": 0}
    other, _ = finished("quantizer=clipping", "quantizer.training.lr._low=0", "epochs=4")
    later = torch.load(other / "checkpoint.pt", weights_only=True)["model"]
    for name in trained:
        if (suffix := "_" + name.rpartition("_")[2]) in moved:
            moved[suffix] += not torch.equal(trained[name], later[name])
    assert moved["_low"] == 0 and moved["_high"] > 0


def test_clipping_rounds_from_the_share_of_training_that_it_was_given():
    clipping = import_module("clipping")
    model = nn.Linear(20, 30)
    quantizer = clipping.ClippingQuantizer(model, bits=4, round_from=0.7, min_size=0, exclude=["bias"])
    quantizer.no_optimizer()
    inputs = torch.randn(5, 20)
    stored = model.eval()(inputs)
    model.train()
    for progress, rounds in ((0.0, False), (0.69, False), (0.7, True), (1.0, True), (0.5, False)):
        quantizer.at(progress)
        assert torch.allclose(model(inputs), stored, atol=1e-6) == rounds
    quantizer.at(1.0)
    with torch.no_grad():
        quantizer.learned()["weight_high"].mul_(0.5)  # some entries are clipped now
    model(inputs).sum().backward()
    assert all(tensor.grad is not None and tensor.grad != 0 for tensor in quantizer.learned().values())


# ---- a noise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed",
    [
        "quantizer=diffq_triangular",
        pytest.param("noise={_target_:triangular.Triangular}", marks=pytest.mark.long),
    ],
)
def test_triangular_noise_by_the_command(typed):
    run, result = finished(typed, "penalty=100")
    assert result["test"]["accuracy"] > 0.5
    rows = rows_of(run)
    assert rows[-1]["size_mb"]["soft"] < rows[0]["size_mb"]["soft"]
    assert len(load_model(run).state_dict()) > 4


def test_triangular_noise_is_that_of_the_forward():
    model = nn.Linear(300, 200, bias=False)
    triangular = import_module("triangular")
    DiffQuantizer(model, min_size=0, group_size=8, init_bits=4, noise=triangular.Triangular(2.0)).no_optimizer()
    step = (model.weight.max() - model.weight.min()).item() / (2**4 - 1)
    eps = (model(torch.eye(300)).t() - model.weight).detach() / step
    assert eps.var().item() == pytest.approx(2.0**2 / 6, rel=0.03)
    assert 1.9 < eps.abs().max() < 2.0 + 1e-4
    assert (eps.abs() < 1).float().mean().item() == pytest.approx(0.75, abs=0.01)


# ---- a size and a ramp ------------------------------------------------------------------------------------------


def test_a_size_and_a_ramp_by_the_command():
    typed = ("size=root_mean_square", "penalty_schedule=late", "bits_lr=0.02")
    run, result = finished(*typed, "penalty=300")
    rows = rows_of(run)
    without, _ = finished(*typed, "penalty=0")
    free = rows_of(without)
    assert [row["size_mb"]["soft"] for row in rows[:2]] == [row["size_mb"]["soft"] for row in free[:2]]
    assert rows[-1]["size_mb"]["soft"] < 0.95 * free[-1]["size_mb"]["soft"]
    assert {row["size_mb"]["measure"] for row in rows} == {"rms"} == {result["size_mb"]["measure"]}
    assert result["choices"]["size"] == "root_mean_square" and result["choices"]["penalty_schedule"] == "late"


def test_a_root_mean_square_is_above_the_mean_and_has_gradients():
    model = nn.Linear(16, 16, bias=False)
    quantizer = DiffQuantizer(model, min_size=0, group_size=8)
    size = import_module("root_mean_square").RootMeanSquare()
    assert size.soft(quantizer).item() == pytest.approx(8 * 256 / 8 / 2**20)  # 8 bits everywhere
    with torch.no_grad():
        quantizer.learned()["weight_diffq"][::2] += 1
    mean = quantizer.bits()["weight"].mean().item() * 256 / 8 / 2**20
    assert size.soft(quantizer).item() > mean * 1.001
    size.soft(quantizer).backward()
    assert (quantizer.learned()["weight_diffq"].grad > 0).all()
