"""Mixed precision, gradient scaling and compilation of the training forward."""

import math

import pytest
import torch
from helpers.run_pieces import TinyNet, tiny_trainer
from helpers.trainer_views import batches_of, finite, rows_in, state_of

from diffq_exp.training.distillation import Teacher
from diffq_exp.training.stopping import StopFlag


class SeesTypes(TinyNet):
    """Notes the type in which its convolution computes, in training and in evaluation."""

    def forward(self, images):
        seen = self.__dict__.setdefault("seen", {})
        outputs = super().forward(images)
        seen[self.training] = (outputs.dtype, self.conv.weight.dtype)
        return outputs


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_precision_is_that_of_the_training_forward(precision, dtype, optimizer, tmp_path):
    """Weights stay float32, and validation is computed in float32."""
    trainer = tiny_trainer(tmp_path, net=SeesTypes, precision=precision, optimizer=optimizer, clip=5.0)
    before = state_of(trainer)
    trainer.fit(StopFlag())
    assert trainer.model.seen[True][0] == dtype and trainer.model.seen[False][0] == torch.float32
    assert all(param.dtype == torch.float32 for param in trainer.model.parameters())
    after = state_of(trainer)
    assert finite(after) and all(not torch.equal(value, before[name]) for name, value in after.items())
    rows = rows_in(tmp_path)
    assert rows[-1]["train"]["loss"] < rows[0]["train"]["loss"]
    assert trainer.scaler.is_enabled() is (precision == "fp16")


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_teacher_computes_in_the_same_precision(precision, dtype, tmp_path):
    trainer = tiny_trainer(tmp_path, precision=precision)
    trainer.teacher = Teacher(SeesTypes(), 0.5, 2.0)
    trainer._step(1, batches_of(trainer)[:1], 3)
    assert trainer.teacher.model.seen == {False: (dtype, torch.float32)}


def test_fp16_scales_the_loss_and_not_the_step(tmp_path):
    """A scale of 2^16 and back is exact: the same weights as without it."""
    ends = []
    for scale in (2.0**4, 2.0**8):
        trainer = tiny_trainer(
            tmp_path / str(scale), optimizer="plain", quantizer="none", precision="fp16", epochs=1
        )
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.fit(StopFlag())
        ends.append(state_of(trainer))
    for name, value in ends[0].items():
        assert torch.allclose(value, ends[1][name], atol=1e-4), name


def test_fp16_skips_a_step_of_bad_gradients_for_weights_and_bits(tmp_path):
    trainer = tiny_trainer(tmp_path, precision="fp16", optimizer="sgd", clip=5.0)
    trainer.model.train()
    before = state_of(trainer)
    hook = trainer.model.head.bias.register_hook(lambda grad: grad * math.inf)
    trainer._step(1, batches_of(trainer)[:1], 3)
    assert all(torch.equal(value, before[name]) for name, value in state_of(trainer).items())
    hook.remove()
    trainer._step(2, batches_of(trainer)[1:2], 3)
    assert all(not torch.equal(value, before[name]) for name, value in state_of(trainer).items())
    assert finite(state_of(trainer))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it traces
def test_compile(tmp_path, monkeypatch):
    """Graphs as for the compiler, run by a backend that compiles nothing: the same numbers, the same state."""
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend="eager"))
    ends = []
    for compiled in (False, True):
        trainer = tiny_trainer(tmp_path / str(compiled), quantizer="qat", compile=compiled, epochs=2)
        assert (trainer.forward is trainer.model) is not compiled
        trainer.fit(StopFlag())
        ends.append((state_of(trainer), rows_in(trainer.folder)))
    assert ends[0][0].keys() == ends[1][0].keys()
    for name, value in ends[0][0].items():
        assert torch.allclose(value, ends[1][0][name], atol=1e-5), name
    assert ends[0][1][-1]["val"] == pytest.approx(ends[1][1][-1]["val"], rel=1e-3)
