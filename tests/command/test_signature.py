"""A run's name: the same for the same run however it is typed, another for everything that the run consumes."""

import os
import re
from functools import cache

import pytest
from helpers.run_configs import ask
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from diffq_exp.command import signature as signature_module
from diffq_exp.command.check import check
from diffq_exp.command.schema import conf_dir, register
from diffq_exp.command.signature import consumed, record_of, register_resolver, run_name, signature
from diffq_exp.common.files import write_json


@cache
def _composed(words: tuple[str, ...]) -> DictConfig:
    register()
    register_resolver()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)


def composed(*words: str, **keys) -> DictConfig:
    """What Hydra makes of `words`, with plain keys (`a__b` for a.b) set afterwards, which is far quicker."""
    cfg = _composed(words).copy()
    for key, value in keys.items():
        with open_dict(cfg):
            OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def sign(*words: str, **keys) -> str:
    return signature(composed(*words, **keys))


# ---- the same run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["lr=1"], ["lr=1.0"]),
        (["lr=0.5", "seed=3"], ["seed=3", "lr=5e-1"]),
        (["optimizer.weight_decay=0"], ["optimizer.weight_decay=0.0"]),
        (["experiment=digits"], []),
        (["model=digits_cnn", "quantizer=diffq"], []),
    ],
)
def test_however_it_is_typed(one, other):
    assert sign(*one) == sign(*other)


def test_defaults_of_nodes_that_came_later_leave_no_trace():
    cfg = composed()
    assert not {"size", "penalty_schedule"} & {
        *consumed(cfg),
        *record_of(cfg, cfg.hydra.runtime.choices, []).choices,
    }
    assert (
        sign("penalty_schedule=ramp")
        == sign("penalty_schedule=ramp", "penalty_schedule.end=0.5")
        != sign("penalty_schedule=ramp", "penalty_schedule.end=0.6")
    )
    assert len({sign(), sign("penalty_schedule=ramp"), sign("size._target_=mine.Size")}) == 3
    assert sign("quantizer=lsq", "penalty_schedule=ramp") == sign("quantizer=lsq")
    record = record_of(
        composed("penalty_schedule=ramp"), composed("penalty_schedule=ramp").hydra.runtime.choices, []
    )
    assert record.choices["penalty_schedule"] == "ramp" and record.config["penalty_schedule"]["end"] == 0.5


def test_a_noise_by_its_class_is_part_of_the_run():
    own = [sign("noise={_target_:mine.Noise}"), sign("noise={_target_:mine.Noise,width:2}"), sign("noise=uniform")]
    assert len({*own, sign()}) == 4


@pytest.mark.parametrize(
    "keys",
    [
        {"device": "cpu"},
        {"num_workers": 7},
        {"checkpoint_minutes": 1.5},
        {"restart": True},
        {"tracking": {"_target_": "my.Tracker", "project": "other"}},
        {"dataset__download_root": "/elsewhere"},
        {"dataset__cache_dir": "/elsewhere"},
        {"bits": 3.0},  # diffq learns its own
        {"clip": None},
    ],
)
def test_what_the_run_does_not_consume(keys):
    assert sign(**keys) == sign()


@pytest.mark.parametrize("place", ["model", "dataset", "quantizer", "optimizer", "scheduler", "task"])
def test_a_new_option_that_is_null(place):
    assert sign(**{f"{place}__an_option_of_tomorrow": None}) == sign()
    assert sign(**{f"{place}__an_option_of_tomorrow": 0}) != sign()


@pytest.mark.parametrize(
    ("quantizer", "ignored"),
    [
        ("qat", {"noise": "uniform", "param": "noise", "group_size": 2, "penalty": 9.0, "bits_lr": 0.5}),
        ("lsq", {"min_bits": 3.0, "init_bits": 4.0, "max_bits": 5.0}),
        ("ptq", {"noise": "uniform", "bits_lr": 0.5}),
        ("none", {"bits": 3.0, "min_size": 0.5, "exclude": ["x"], "float16": True}),
    ],
)
def test_keys_that_the_quantizer_ignores(quantizer, ignored):
    words = [f"quantizer={quantizer}"]
    assert sign(*words, **ignored) == sign(*words)
    assert sign(*words, **ignored, seed=5) != sign(*words)


def test_the_order_of_keys_is_nothing():
    cfg = composed()
    turned = cfg.copy()
    with open_dict(turned):
        turned.quantizer = dict(reversed(list(OmegaConf.to_container(cfg.quantizer, resolve=True).items())))
    assert list(turned.quantizer) != list(cfg.quantizer)
    assert signature(turned) == signature(cfg)


# ---- another run ----------------------------------------------------------------------------------------------

CONSUMED = [
    {"noise": "uniform"}, {"param": "noise"}, {"group_size": 4}, {"penalty": 2.0}, {"min_bits": 3.0},
    {"max_bits": 14.0}, {"init_bits": 7.0}, {"min_size": 0.5}, {"exclude": ["*.bias"]}, {"float16": True},
    {"seed": 1}, {"epochs": 3}, {"batch_size": 32}, {"accumulate": 2}, {"lr": 0.5}, {"bits_lr": 0.5}, {"clip": 1.0},
    {"val_fraction": 0.2}, {"precision": "bf16"}, {"threads": 2}, {"threads": 3}, {"model__width": 3},
    {"dataset__crop": 3}, {"dataset__flip": True}, {"dataset__root": "/a"}, {"dataset__root": "/b"},
    {"optimizer__weight_decay": 0.1}, {"optimizer___target_": "my.Adam"}, {"scheduler__final": 0.5},
    {"task__label_smoothing": 0.5}, {"quantizer__extra_bits": 1}, {"model___target_": "my.Net"},
]  # fmt: skip


def test_everything_that_the_run_consumes_gives_another_name():
    names = [sign(), *(sign(**keys) for keys in CONSUMED)]
    twice = [([{}, *CONSUMED])[at] for at, name in enumerate(names) if names.count(name) > 1]
    assert not twice


def test_each_quantizer_gives_another_name():
    names = {sign(f"quantizer={name}") for name in ("diffq", "qat", "ptq", "lsq", "none")}
    assert len(names) == 5
    assert sign("quantizer=qat", bits=3.0) != sign("quantizer=qat")


def test_seed_0_is_a_seed():
    assert len({sign(seed=seed) for seed in (0, 1, 2)}) == 3


def test_the_root_is_the_folder_however_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    assert sign(dataset__root="images") == sign(dataset__root=str(tmp_path / "images"))
    assert sign(dataset__root="images") != sign(dataset__root="other")


# ---- the name -------------------------------------------------------------------------------------------------


def test_the_folder_is_named_after_what_was_chosen():
    cfg = composed("dataset=synthetic", "model=resnet20", "quantizer=qat")
    assert re.fullmatch(r"outputs/synthetic-resnet20-qat-[0-9a-f]{8,}", cfg.hydra.run.dir)
    assert cfg.hydra.run.dir.endswith(f"-{signature(cfg)}")


def test_the_folder_can_be_chosen():
    assert composed("hydra.run.dir=elsewhere").hydra.run.dir == "elsewhere"


# ---- init_from ------------------------------------------------------------------------------------------------


def run_folder(path, name: str):
    path.mkdir(parents=True)
    write_json(path / "result.json", {"status": "finished", "signature": name, "test": {"accuracy": 0.5}})
    return str(path)


def test_init_from_a_run_is_that_run_wherever_it_lies(tmp_path):
    here, moved = run_folder(tmp_path / "a", "0123456789"), run_folder(tmp_path / "deep" / "b", "0123456789")
    other = run_folder(tmp_path / "c", "9876543210")
    assert sign(init_from=here) == sign(init_from=moved)
    assert len({sign(), sign(init_from=here), sign(init_from=other)}) == 3


def test_init_from_a_file_is_its_content(tmp_path):
    for name, content in {"a": b"one", "b": b"one", "c": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    a, b, c = (sign(init_from=str(tmp_path / name)) for name in "abc")
    assert a == b and len({a, c, sign()}) == 3


def test_init_from_a_relative_path(tmp_path, monkeypatch):
    here = run_folder(tmp_path / "a", "0123456789")
    monkeypatch.chdir(tmp_path)
    assert sign(init_from="a") == sign(init_from=here) == sign(init_from=os.path.join("..", tmp_path.name, "a"))


def test_weights_of_a_folder_that_the_model_names_are_their_content(tmp_path):
    words = ("dataset=text", "model=transformers", "task=language_modelling", "dataset.path=.")
    signs = []
    for folder, content in {"a": b"one", "b": b"one", "c": b"two"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(content)
        signs.append(sign(*words, model__name=str(tmp_path / folder), model__pretrained=True))
    (tmp_path / "a" / "model.safetensors").write_bytes(b"three")
    signs.append(sign(*words, model__name=str(tmp_path / "a"), model__pretrained=True))
    signs.append(sign(*words, model__name=str(tmp_path / "a"), model__pretrained=False))
    for config in ('{"n_head": 2}', '{"n_head": 4}'):
        (tmp_path / "a" / "config.json").write_text(config)
        signs.append(sign(*words, model__name=str(tmp_path / "a"), model__pretrained=True))
    assert len(set(signs)) == 7  # the place counts too


@pytest.mark.parametrize("model", ["torchvision", "timm"])
def test_a_folder_that_has_the_name_of_a_network_by_chance(model, tmp_path, monkeypatch):
    """The two libraries read no folder."""
    monkeypatch.chdir(tmp_path)
    words = (f"model={model}", "model.name=resnet18", "model.pretrained=true")
    before = sign(*words)
    (tmp_path / "resnet18").mkdir()
    assert sign(*words) == before and check(words).errors == []


TRAINING = {
    "epochs": 3, "accumulate": 2, "lr": 0.5, "clip": 1.0, "optimizer__weight_decay": 0.1,
    "scheduler__final": 0.5,
}  # fmt: skip


def test_quantizing_a_trained_network_ignores_how_to_train(tmp_path):
    source = run_folder(tmp_path / "a", "0123456789")
    ptq = {"init_from": source}
    for key, value in TRAINING.items():
        change = {key: value}
        assert sign("quantizer=ptq", **ptq, **change) == sign("quantizer=ptq", **ptq), key
        assert sign("quantizer=ptq", **change) != sign("quantizer=ptq"), key
        assert sign("quantizer=lsq", **ptq, **change) != sign("quantizer=lsq", **ptq), key
    assert sign("quantizer=ptq", **ptq, bits=3.0) != sign("quantizer=ptq", **ptq)
    assert sign("quantizer=ptq", **ptq) != sign("quantizer=ptq")


def test_a_target_of_ones_own_names_the_run():
    cfg = composed("model._target_=mine.Net", "quantizer=ptq")
    assert run_name(cfg).startswith("digits-Net-ptq-")


def test_keys_that_came_later_are_in_no_record_unless_they_were_changed():
    """So that runs of before and runs of now, which differ in their seed only, are one point of a report."""

    def config_of(*words):
        asked = ask("quantizer=qat", *words)
        return record_of(asked.cfg, asked.choices, []).config

    plain = config_of()
    assert not {"per_channel", "ranges"} & plain["quantizer"].keys() and "fold" not in plain["storage"]
    changed = config_of("quantizer.per_channel=true", "quantizer.ranges=mse", "storage.fold=true")
    assert changed["quantizer"]["per_channel"] is True and changed["quantizer"]["ranges"] == "mse"
    assert changed["storage"]["fold"] is True


def test_the_check_computes_the_signature_of_a_job_once(monkeypatch):
    """Its folder, its name and its record have it; the float32 network that it begins from has one of its own."""
    computed = []
    original = signature_module._signature
    monkeypatch.setattr(signature_module, "_signature", lambda cfg: computed.append(cfg) or original(cfg))
    plan = check(["-m", "seed=0,1", "init_from=float32"])
    assert len(computed) == 4 and len({job.signature for job in plan.jobs}) == 2
    (first, _) = plan.jobs
    with open_dict(first.cfg):
        first.cfg.seed = 7
    assert signature_module.signature(first.cfg) not in {job.signature for job in plan.jobs}
