"""`python -m diffq_exp.search`: what it asks for, what it finds, and what it refuses."""

import hashlib
import json
import re
from types import SimpleNamespace

import pytest
from helpers import warm
from helpers.run_configs import TINY

from diffq_exp import search
from diffq_exp.results.headline import Headline
from diffq_exp.results.records import RunRecord, read_record
from diffq_exp.sweeps import smallest

WORDS = [*TINY, "quantizer=qat", "bits=8"]


@pytest.fixture
def found(tmp_path, monkeypatch, capsys):
    """The search in this process, its runs in forks: what it ended with, what it said, what they said."""
    monkeypatch.chdir(tmp_path)
    said = []

    def do(words, folder, stop_early=None):
        done = warm.run(["-m", "diffq_exp.train", *words], tmp_path)
        said.append(done.stdout + done.stderr)
        return done.returncode, read_record(folder)

    monkeypatch.setattr(smallest, "do_run", do)

    def search_with(*words, own=WORDS):
        said.clear()
        return search.main([*own, *words]), capsys.readouterr(), "".join(said)

    return search_with


def test_the_smallest_file_within_the_drop_and_going_on(found, tmp_path):
    code, first, runs = found("max_drop=0.9", "probes=2")
    assert code == 0, runs
    assert "warning" not in first.err
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/result.json")]
    probes = [record for record in records if record["choices"]["quantizer"] == "qat"]
    assert len(records) == len(probes) + 1 and 1 <= len(probes) <= 2  # and the float32 run
    smallest = min(record["size_mb"]["file"] for record in probes if record["target_met"])
    assert f"smallest: {smallest * 2**20:,.0f} bytes" in first.out
    written = {path: path.stat().st_mtime for path in tmp_path.glob("outputs/*/model.safetensors")}
    code, again, runs = found("max_drop=0.9", "probes=2")
    assert code == 0 and "is finished already" in runs
    assert written == {path: path.stat().st_mtime for path in tmp_path.glob("outputs/*/model.safetensors")}
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]


def test_finished_runs_are_known_and_the_search_begins_between_them(found, tmp_path):
    own = [*TINY, "quantizer=diffq"]
    for words in (["penalty=3.0000001"], ["seed=7", "penalty=3.0000001"]):  # the second is of another task
        assert warm.run(["-m", "diffq_exp.train", *own, *words], tmp_path).returncode == 0
    code, said, runs = found("max_drop=0.9", "probes=1", "--seeds", "2", own=own)
    assert code == 0, said.err + runs
    rows = re.findall(r"^ *(\w+)=(\S+) +([\d,]+) ", said.out, re.MULTILINE)
    (key, value, size), (_, asked, _) = rows  # it, and one probe, whose target is out of reach
    assert (key, value, len(rows)) == ("penalty", "3.0000001", 2)
    [plain] = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*-none-*/result.json")]
    ratio = plain["size_mb"]["float32"] * 2**20 / int(size.replace(",", ""))
    assert float(asked) == pytest.approx(4 * ratio, rel=0.01)
    assert f"smallest: {size} bytes, penalty=3.0000001, in" in said.out and "2 seeds: test accuracy" in said.out
    assert "is finished already" in runs  # the one of seed 0


def known_run(outputs, name, config, accuracy, file=0.01, digest="x", **entries):
    """A finished run as a search finds it; its network is never read."""
    values = {
        "status": "finished", "signature": hashlib.sha256(name.encode()).hexdigest()[:10],
        "choices": {"quantizer": "rate"}, "config": {"lr": 1, **config}, "val": {"accuracy": accuracy},
        "test": {"accuracy": accuracy}, "data": {"digest": digest}, "size_mb": {"file": file, "float32": 1.0},
        **entries,
    }  # fmt: skip
    (outputs / name).mkdir(parents=True)
    (outputs / name / "result.json").write_text(json.dumps(values))


def test_which_runs_are_known_and_between_which_a_search_begins(tmp_path, monkeypatch):
    known_run(tmp_path, "good", {"penalty": 1}, 0.9, file=0.05)
    known_run(tmp_path, "asked", {"target_ratio": 40}, 0.9, target_met=True)
    known_run(tmp_path, "bad", {"target_mb": 0.01}, 0.7, target_met=True)
    known_run(tmp_path, "missed", {"target_mb": 0.005}, 0.9, target_met=False)
    known_run(tmp_path, "smaller, and by chance good", {"penalty": 2}, 0.9, file=0.02)
    known_run(tmp_path, "larger than float32", {"penalty": 0.01}, 0.9, file=1.1)
    known_run(tmp_path, "other data", {"penalty": 3}, 0.9, file=0.001, digest="y")
    known_run(tmp_path, "other rate", {"penalty": 3, "lr": 2}, 0.9, file=0.001)
    known_run(tmp_path, "other method", {"penalty": 3}, 0.9, file=0.001, choices={"quantizer": "diffq"})
    known_run(tmp_path, "diverged", {"penalty": 3}, 0.9, file=0.001, status="diverged")
    task = RunRecord(choices={"quantizer": "rate"}, config={"lr": 1, "target_ratio": 2})
    monkeypatch.setattr(smallest, "record_of", lambda cfg, choices, overrides: task)
    runtime = SimpleNamespace(hydra=SimpleNamespace(runtime=SimpleNamespace(choices={})))
    reference = RunRecord(val={"accuracy": 0.9}, data={"digest": "x"}, headline=Headline())
    known = list(smallest._known(SimpleNamespace(cfg=runtime, folder=tmp_path / "new"), reference))
    assert {probe.setting: probe.ratio for probe in known} == {
        "penalty=1": 20, "target_ratio=40": 40, "target_mb=0.01": 100, "target_mb=0.005": 200, "penalty=2": 50,
        "penalty=0.01": 1,
    }  # fmt: skip
    asked = []
    monkeypatch.setattr(smallest, "_probe", lambda overrides, ratio, reference: asked.append(ratio))
    assert list(smallest._probes([], reference, 0.1, 3, known)) == []
    assert asked == [70.7, 59.5]  # between 50 and 100, then 70.7; one of the three probes was made before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "max_drop: has no default"),
        (["max_drop=0"], "max_drop=0: a number > 0 and < 1 is allowed"),
        (["max_drop=2"], "max_drop=2: a number > 0 and < 1 is allowed"),
        (["max_drop=few"], "max_drop=few: a number is allowed"),
        (["max_drop=0.1", "probes=0"], "probes=0: a whole number >= 1 is allowed"),
        (["max_drop=0.1", "target_mb=1"], "target_mb=1: a search makes its own runs"),
        (["max_drop=0.1", "penalty=1"], "penalty=1: a search makes its own runs"),
        (["max_drop=0.1", "probes=nan"], "probes=nan: a number is allowed"),
        pytest.param(
            ["max_drop=0.1", "experiment=noise_ablation"],
            "a sweep: a search makes its own runs",
            marks=pytest.mark.long,
        ),
        (["max_drop=0.1", "val_fraction=0"], "val_fraction=0: a search needs a validation part"),
        (["max_drop=0.1", "dry_run=true"], "dry_run=true: a search makes its own runs"),
        (["max_drop=0.1", "hydra.run.dir=x"], "hydra.run.dir=x: a search makes its own runs"),
        (["max_drop=0.1", "seed=0,1"], "seed=0,1: a search makes its own runs"),
        (["max_drop=0.1", "quantizer=none"], "quantizer=none has no size to choose"),
        (["max_drop=0.1", "epoch=3"], "epoch=3: unknown; the nearest is epochs"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert search.main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0]
    assert not list(tmp_path.iterdir())


def test_a_validation_part_too_small_for_the_drop_is_told(capsys):
    record = RunRecord(data={"val": 120}, headline=Headline())
    smallest.warn_of_few_examples(record, 0.01)
    assert capsys.readouterr().err == ""
    smallest.warn_of_few_examples(record, 0.005)
    assert "one of the 120 examples of the validation part is worth 0.0083" in capsys.readouterr().err


def test_its_help_says_both_ways(capsys):
    with pytest.raises(SystemExit):
        search.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: python -m diffq_exp.search max_drop=0.005")
    assert "python -m diffq_exp.search trials=40 over='{penalty: [1, 3]}'" in text and "a study" in text
