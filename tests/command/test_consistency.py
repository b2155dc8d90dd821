"""Errors and warnings of a configuration as a whole: values together, paths, targets, keys without effect."""

import pytest
from helpers.command_lines import checked, errors_of, only_error, refused

from diffq_exp.command.check import check
from diffq_exp.common.files import write_json

# ---- what values give together -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("min_bits=9",), ["min_bits=9", "init_bits", "8"]),
        (("max_bits=8",), ["init_bits=8", "max_bits", "8"]),
        (("min_bits=3", "init_bits=3", "max_bits=5"), ["min_bits=3", "below init_bits", "3"]),
        (("quantizer=lsq", "bits=2.5"), ["bits=2.5", "whole number", ">= 2", "15"]),
        (("quantizer=lsq", "bits=1"), ["bits=1", ">= 2"]),
        (("dataset=image_folder",), ["dataset.root"]),
        (("init_from=/nowhere",), ["init_from=/nowhere", "no such"]),
        (("experiment=cifar10_resnet20", "max_bits=7"), ["init_bits=8", "max_bits", "7"]),
        (
            ("penalty_schedule=ramp", "penalty_schedule.start=0.6"),
            ["penalty_schedule.start=0.6", "below end", "0.5"],
        ),
        (("noise={_target_:nowhere.Noise}",), ["noise._target_=nowhere.Noise", "no package or module 'nowhere'"]),
    ],
)
def test_cross_errors(words, parts):
    error = only_error(*words)
    assert all(part in error for part in parts), error


def test_bits_do_not_matter_to_a_quantizer_without_them():
    assert errors_of("quantizer=qat", "min_bits=9") == []
    assert errors_of("bits=2.5", "quantizer=ptq") == []


def test_init_from_wants_a_run(tmp_path):
    error = only_error(f"init_from={tmp_path}")
    assert f"init_from={tmp_path}" in error


@pytest.mark.parametrize("name", ["model.safetensors", "net.pth"])
def test_a_file_that_is_none_of_a_network(name, tmp_path):
    file = tmp_path / name
    for content in (b"", b"hi", b"hello, net"):
        file.write_bytes(content)
        error = check([f"init_from={file}"]).errors[0]
        assert error == f"init_from={file}: {name} is neither a safetensors file nor one that torch.save writes"
    for content in (b"PK\x03\x04", b"\x80\x02", b"\x10" + bytes(7) + b"{"):
        file.write_bytes(content)
        assert check([f"init_from={file}"]).errors == []


@pytest.mark.parametrize("text", ["[1, 2]", '{"status": "ok"}', '{"test": 0.93}', '{"signature": 3}'])
def test_a_result_of_somebody_else_makes_no_run(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    assert "the status of this one is: no run" in only_error(f"teacher={tmp_path}")
    assert "no run, and none of model" in only_error(f"init_from={tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(bytes(8) + b"{}")
    signatures = set()
    for _ in range(2):
        plan = check([f"init_from={tmp_path}"])
        signatures.add(plan.jobs[0].signature)
        (tmp_path / "result.json").unlink(missing_ok=True)
    assert plan.errors == [] and len(signatures) == 1


@pytest.mark.parametrize("text", ["", "{", "\0", '{"status": "finished", "signature": "0123456789", "test": 3}'])
def test_the_damaged_record_of_a_run_is_told(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"content")
    assert "unreadable result.json" in only_error(f"init_from={tmp_path}")


def test_a_root_that_is_there_is_right(tmp_path):
    assert errors_of("dataset=image_folder", f"dataset.root={tmp_path}") == []


# ---- warnings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("quantizer=qat", "noise=uniform", "bits=3", "group_size=4"), ["noise=uniform", "group_size=4"]),
        (("quantizer=none", "penalty=3", "min_size=0"), ["penalty=3", "min_size=0"]),
        (("quantizer=diffq", "bits=3", "penalty=3"), ["bits=3"]),
        (("quantizer=lsq", "bits_lr=0.1", "bits=3"), ["bits_lr=0.1"]),
        (("quantizer=lsq", "penalty_schedule=ramp", "size=formula"), ["penalty_schedule=ramp"]),
        (("quantizer=none", "penalty_schedule=ramp", "size=formula"), ["penalty_schedule=ramp", "size=formula"]),
        (("penalty_schedule=ramp", "penalty_schedule.end=0.7", "size=formula", "noise=none"), []),
        (("experiment=cifar10_resnet20", "quantizer=qat"), []),
        (("quantizer=qat", "bits=3", "min_size=0", "float16=true", "exclude=[bias]"), []),
        (("noise=uniform", "param=noise", "group_size=4", "penalty=2", "bits_lr=0.1", "min_bits=3"), []),
        (("quantizer=ptq", "epochs=3", "bits=4", "device=cpu", "num_workers=1", "restart=true"), []),
    ],
)
def test_keys_that_the_quantizer_ignores(words, warned):
    plan = checked(*words)
    assert plan.errors == []
    assert len(plan.warnings) == len(warned)
    for word, warning in zip(warned, plan.warnings, strict=True):
        assert word in warning and "\n" not in warning


def test_a_warning_names_the_quantizer():
    (warning,) = checked("quantizer=none", "penalty=3").warnings
    assert "none" in warning


def test_training_keys_of_a_ptq_without_training(tmp_path):
    write_json(tmp_path / "result.json", {"status": "finished", "signature": "0123456789"})
    plan = check(["quantizer=ptq", f"init_from={tmp_path}", "epochs=3", "lr=0.5", "bits=4", "seed=1"])
    assert plan.errors == []
    assert [warning.split(":")[0] for warning in plan.warnings] == ["epochs=3", "lr=0.5"]
    plan = check(["quantizer=lsq", f"init_from={tmp_path}", "epochs=3"])
    assert plan.jobs and not plan.errors and not plan.warnings


# ---- folders, packages, order of words -----------------------------------------------------------------------


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "afile").touch()
    for place in ("afile", "afile/sub"):
        error = only_error(f"hydra.run.dir={tmp_path}/{place}")
        assert "is not a folder" in error and "afile" in error


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("model._target_=nosuchmodule.Net", "nosuchmodule"),
        ("model._target_=null", "package.Class"),
        ("quantizer.extra_bits=-1", ">= 0"),
        ("++optimizer.lr=abc", "a number > 0"),
        ("threads=100000", "1024"),
    ],
)
def test_errors_of_targets_and_bounds(word, part):
    assert part in only_error(word)


def test_options_may_follow_overrides(tmp_path):
    plan = check(["lr=1", "-m", "seed=1,2", "--config-dir", str(tmp_path), "epochs=3"])
    assert [(job.cfg.lr, job.cfg.seed, job.cfg.epochs) for job in plan.jobs] == [(1, 1, 3), (1, 2, 3)]


@pytest.mark.parametrize("line", ["storage.flaot=float16", "+storage.flaot=float16"])
def test_storage_has_no_other_options(line, capsys, monkeypatch, tmp_path):
    told = refused(capsys, monkeypatch, tmp_path, line)
    assert "storage.flaot: unknown" in told and "float" in told.replace("storage.flaot", "")


def test_rounding_beside_a_target_is_refused():
    said = only_error("quantizer=rate", "target_ratio=20", "round_penalty=5")
    assert said == "round_penalty=5: not beside a target, which would be filled up again"
    assert errors_of("quantizer=rate", "penalty=5", "round_penalty=5") == []
    assert errors_of("quantizer=rate", "target_ratio=20", "round_penalty=null") == []
