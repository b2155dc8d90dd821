"""The training loop: what a step computes, what an epoch's row says, and whole trainings."""

import copy

import pytest
import torch
from helpers.run_pieces import CPU, RandomNet, TinyNet, tiny_data, tiny_trainer
from helpers.trainer_views import Collect, batches_of, rows_in, state_of
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode

from diffq_exp.tasks.classification import Classification
from diffq_exp.training.measure import evaluate
from diffq_exp.training.optim import Optimizers
from diffq_exp.training.schedule import Constant, Cosine
from diffq_exp.training.settings import Settings
from diffq_exp.training.stopping import StopFlag
from diffq_exp.training.trainer import Trainer

# ---- a step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 7.0])
def test_the_loss_is_task_loss_plus_penalty_times_size(penalty, tmp_path):
    trainer = tiny_trainer(tmp_path, penalty=penalty)
    trainer.model.train()
    images, targets = batches_of(trainer)[0]
    torch.manual_seed(1)
    loss = trainer._loss(images, targets)
    torch.manual_seed(1)
    task = functional.cross_entropy(trainer.model(images), targets)
    size = trainer.quantizer.model_size()
    assert loss.item() == pytest.approx(task.item() + penalty * size.item(), rel=1e-6)
    loss.backward()
    grads = {name: logit.grad.clone() for name, logit in trainer.quantizer.learned().items()}
    trainer.optimizers.zero_grad()
    torch.manual_seed(1)
    functional.cross_entropy(trainer.model(images), targets).backward()
    (penalty * trainer.quantizer.model_size()).backward()
    for name, logit in trainer.quantizer.learned().items():
        assert torch.allclose(logit.grad, grads[name], rtol=1e-4, atol=1e-9), name


@pytest.mark.parametrize("quantizer", ["none", "qat", "lsq"])
def test_without_learned_bits_the_loss_is_that_of_the_task(quantizer, tmp_path):
    trainer = tiny_trainer(tmp_path, quantizer=quantizer)
    trainer.model.train()
    images, targets = batches_of(trainer)[0]
    task = functional.cross_entropy(trainer.model(images), targets)
    assert torch.equal(trainer._loss(images, targets), task)


def test_bits_fall_faster_under_a_higher_penalty(tmp_path):
    means = []
    for penalty in (0.0, 200.0):
        trainer = tiny_trainer(tmp_path / str(penalty), penalty=penalty, schedule=Constant())
        trainer.fit(StopFlag())
        means.append(rows_in(trainer.folder)[-1]["bits"]["mean"])
    assert means[1] < means[0] - 0.2


@pytest.mark.parametrize("quantizer", ["none", "qat"])
@pytest.mark.parametrize("optimizer", ["plain", "adam"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_batches_accumulated_are_one_batch_of_their_size(quantizer, optimizer, clip, tmp_path):
    """24 images: 6 batches of 4, three by three, against 2 batches of 12."""
    ends = []
    for size, accumulate in ((4, 3), (12, 1)):
        trainer = tiny_trainer(
            tmp_path / str(size), quantizer=quantizer, optimizer=optimizer, accumulate=accumulate, clip=clip,
            data=tiny_data(batch_size=size, crop=0), epochs=2,
        )  # fmt: skip
        trainer.fit(StopFlag())
        ends.append((state_of(trainer), rows_in(trainer.folder)))
    for name, value in ends[0][0].items():
        assert torch.allclose(value, ends[1][0][name], rtol=1e-3, atol=1e-5), name
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-4)
        assert one["lr"] == other["lr"]


def test_what_is_left_of_an_epoch_makes_a_step(tmp_path):
    """3 batches, two by two: 2 steps, of 2 batches and of 1."""
    trainer = tiny_trainer(tmp_path, quantizer="none", accumulate=2, epochs=1)
    seen = []
    step = trainer._step
    trainer._step = lambda number, batches, steps: (seen.append((number, len(batches), steps)),
                                                    step(number, batches, steps))  # fmt: skip
    trainer.fit(StopFlag())
    assert seen == [(1, 2, 2), (2, 1, 2)]


def test_a_step_of_plain_sgd_by_hand(tmp_path):
    trainer = tiny_trainer(tmp_path, quantizer="none", optimizer="plain", schedule=Constant(), clip=0.05)
    twin = copy.deepcopy(trainer.model)
    batch = batches_of(trainer)[0]
    trainer.model.train()
    trainer._step(1, [batch], 3)
    functional.cross_entropy(twin(batch[0]), batch[1]).backward()
    norm = torch.cat([param.grad.flatten() for param in twin.parameters()]).norm()
    assert norm > 0.05
    for name, param in twin.named_parameters():
        expected = param - 0.1 * param.grad * 0.05 / norm
        assert torch.allclose(trainer.model.get_parameter(name), expected, atol=1e-6), name


def test_rates_go_by_steps_within_epochs(tmp_path):
    class Spy:
        bits = False

        def __init__(self):
            self.places = []

        def factor(self, epoch, epochs):
            self.places.append((epoch, epochs))
            return 1.0

    spy = Spy()
    tiny_trainer(tmp_path, quantizer="none", schedule=spy, epochs=2).fit(StopFlag())
    assert [place for place, _ in spy.places] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    assert {epochs for _, epochs in spy.places} == {2}


class NoReading(TorchDispatchMode):
    """Raises where a value is read from a tensor, which on a GPU waits for it.

    Not for the step counts of optimizers: torch keeps those on the CPU, whatever the device.
    """

    READS = ("_local_scalar_dense", "aten.nonzero", "aten.equal.", "masked_select", "aten.unique")

    def __init__(self, optimizers):
        super().__init__()
        self.optimizers = optimizers

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.READS):
            states = [state for one in self.optimizers.optimizers for state in one.state.values()]
            counts = {state["step"].data_ptr() for state in states if "step" in state}
            assert args[0].data_ptr() in counts, f"{func}: a step waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("quantizer", ["none", "diffq", "uniform_noise", "qat", "lsq"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_no_waiting_for_the_device_inside_a_step(quantizer, optimizer, precision, tmp_path):
    trainer = tiny_trainer(
        tmp_path, quantizer=quantizer, optimizer=optimizer, precision=precision, clip=5.0, accumulate=2,
        data=tiny_data(classes=20, images=300), net=lambda: TinyNet(20),
    )  # fmt: skip
    trainer.model.train()
    batches = batches_of(trainer)
    trainer._step(1, batches[:2], 3)  # in its first step a quantizer looks at what the model does with its weights
    with NoReading(trainer.optimizers):
        for step in (2, 3):
            trainer._step(step, batches[2 * step - 2 : 2 * step], 3)
        with pytest.raises(AssertionError, match="waits"):
            float(trainer.sums.totals["loss"])


# ---- rows ---------------------------------------------------------------------------------------------------


def test_fields_of_a_row(tmp_path):
    listener = Collect()
    trainer = tiny_trainer(tmp_path, listeners=[listener])
    trainer.fit(StopFlag())
    rows = rows_in(tmp_path)
    assert rows == listener.rows and [row["epoch"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert set(row["train"]) == set(row["val"]) == {"loss", "accuracy"}
        assert all(0 <= row[part]["accuracy"] <= 1 for part in ("train", "val"))
        assert set(row["size_mb"]) == {"soft", "measure", "true"} and row["size_mb"]["measure"] == "formula"
        assert set(row["bits"]) == {"mean", "min", "max", "layers", "histogram"}
        assert row["seconds"] > 0 and row["examples_per_second"] > 0 and row["lr"] > 0
    assert rows[-1]["size_mb"]["true"] == trainer.quantizer.true_model_size()
    assert rows[0]["train"]["loss"] > rows[-1]["train"]["loss"]  # it learns
    assert rows[0]["bits"]["mean"] > rows[-1]["bits"]["mean"]


def test_train_numbers_are_means_over_images_of_the_steps_as_taken(tmp_path):
    """With a rate of nothing, those of the network as it is; batches of 10, 10 and 4."""
    data = tiny_data(batch_size=10)
    trainer = tiny_trainer(tmp_path, quantizer="none", data=data, epochs=1)
    trainer.optimizers = Optimizers([SGD(trainer.model.parameters(), lr=0.0)])
    trainer.fit(StopFlag())
    images = torch.cat([x for x, _ in data.train.epoch(0)])
    targets = torch.cat([y for _, y in data.train.epoch(0)])
    with torch.no_grad():
        outputs = trainer.model(images)
    (row,) = rows_in(tmp_path)
    assert row["train"]["loss"] == pytest.approx(functional.cross_entropy(outputs, targets).item(), rel=1e-5)
    assert row["train"]["accuracy"] == pytest.approx((outputs.argmax(1) == targets).float().mean().item())


def test_the_train_loss_of_a_row_is_without_the_penalty(tmp_path):
    losses = []
    for penalty in (0.0, 1000.0):
        trainer = tiny_trainer(tmp_path / str(penalty), penalty=penalty, epochs=1, data=tiny_data(batch_size=24))
        trainer.fit(StopFlag())
        losses.append(rows_in(trainer.folder)[0]["train"]["loss"])
    assert losses[0] == losses[1]  # of one step, before it changed anything


@pytest.mark.parametrize("classes", [19, 20])
def test_top5_from_20_classes_on(classes, tmp_path):
    data = tiny_data(classes=classes, images=8 * classes)
    tiny_trainer(tmp_path, net=lambda: TinyNet(classes), data=data, epochs=1).fit(StopFlag())
    (row,) = rows_in(tmp_path)
    for part in ("train", "val"):
        assert ("accuracy_top5" in row[part]) is (classes == 20)
    if classes == 20:
        assert row["train"]["accuracy"] <= row["train"]["accuracy_top5"] <= 1


def test_without_a_validation_part_rows_have_none(tmp_path):
    trainer = tiny_trainer(tmp_path, data=tiny_data(val_fraction=0.0), epochs=1)
    trainer.fit(StopFlag())
    (row,) = rows_in(tmp_path)
    assert "val" not in row and row["train"]["accuracy"] >= 0


def test_without_a_quantizer_rows_tell_the_size_of_float32(tmp_path):
    trainer = tiny_trainer(tmp_path, quantizer="none", epochs=1)
    trainer.fit(StopFlag())
    (row,) = rows_in(tmp_path)
    size = 4 * sum(param.numel() for param in trainer.model.parameters()) / 2**20
    assert row["size_mb"] == {"soft": size, "measure": "formula", "true": size}


def test_listeners_hear_of_the_start_and_of_the_end_of_each_epoch(tmp_path):
    listener = Collect()
    tiny_trainer(tmp_path, listeners=[listener], run_id="abc").fit(StopFlag())
    assert (listener.run_id, listener.earlier) == ("abc", [])
    assert [step[:3] for step in listener.steps] == [(1, 3, 3), (2, 3, 3), (3, 3, 3)]
    assert set(listener.steps[0][3]) == {"loss", "accuracy"}


def test_validation_is_of_the_stored_weights(tmp_path):
    """The row's validation accuracy and loss are those of the network with quantized weights."""
    trainer = tiny_trainer(tmp_path, quantizer="qat", epochs=1)
    trainer.fit(StopFlag())
    (row,) = rows_in(tmp_path)
    plain = TinyNet()
    stored = trainer.quantizer.stored_model().values()
    plain.load_state_dict(stored)
    assert row["val"] == pytest.approx(evaluate(plain, trainer.data.val, Classification()), rel=1e-6)


# ---- whole trainings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantizer", ["none", "diffq", "uniform_noise", "qat", "lsq"])
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.long)])
def test_it_learns(quantizer, optimizer, tmp_path):
    data = tiny_data(images=96, crop=0)
    trainer = tiny_trainer(tmp_path, quantizer=quantizer, optimizer=optimizer, epochs=6, clip=5.0, data=data)
    trainer.fit(StopFlag())
    assert rows_in(tmp_path)[-1]["val"]["accuracy"] >= 0.9


def test_the_same_seed_gives_the_same_bits(tmp_path):
    ends = []
    for seed in (0, 0, 1):
        trainer = tiny_trainer(tmp_path / str(len(ends)), net=RandomNet, seed=seed, epochs=2)
        trainer.fit(StopFlag())
        ends.append(state_of(trainer))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not all(torch.equal(value, ends[2][name]) for name, value in ends[0].items())


def test_no_epochs_leave_the_network_as_it_is(tmp_path):
    trainer = tiny_trainer(tmp_path, quantizer="none", epochs=0)
    before = state_of(trainer)
    trainer.fit(StopFlag())
    assert rows_in(tmp_path) == [] and not (tmp_path / "checkpoint.pt").exists()
    assert all(torch.equal(value, before[name]) for name, value in state_of(trainer).items())


def test_a_single_image_left_over_is_no_batch_of_batch_norm(tmp_path):
    class Normed(TinyNet):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, images):
            return self.norm(super().forward(images))

    trainer = tiny_trainer(tmp_path, net=Normed, data=tiny_data(images=9, val_fraction=0.0), epochs=1)
    trainer.fit(StopFlag())
    assert len(rows_in(tmp_path)) == 1


def test_a_trainer_of_pieces_that_only_look_like_ours(tmp_path):
    """Task, schedule and quantizer are protocols: nothing of ours has to be inherited."""

    class Task:
        def loss(self, outputs, targets):
            return (outputs.mean(1) - targets).square().mean()

        def scores(self, outputs, targets):
            return {"error": (outputs.mean(1) - targets).abs().sum(), "accuracy": targets.sum() * 0}

    class Half:
        bits = True

        def factor(self, epoch, epochs):
            return 0.5

    model = TinyNet()
    trainer = Trainer(
        model, None, Optimizers([SGD(model.parameters(), lr=0.1)]), Half(), Task(), tiny_data(), Settings(1),
        device=CPU, folder=tmp_path, run_id="x", listeners=[],
    )  # fmt: skip
    trainer.fit(StopFlag())
    (row,) = rows_in(tmp_path)
    assert row["lr"] == 0.05 and row["train"]["error"] > 0 and row["val"]["error"] > 0


def test_rates_of_bits_in_a_run(tmp_path):
    trainer = tiny_trainer(tmp_path, schedule=Cosine(), optimizer="sgd")
    trainer.fit(StopFlag())
    weights, bits = trainer.optimizers.param_groups
    assert weights["lr"] < 0.05 * 0.1 and bits["lr"] == 0.05
    assert rows_in(tmp_path)[-1]["lr"] == weights["lr"]
