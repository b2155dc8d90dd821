"""The command: what it prints and writes, its mistakes, its time, and that it never imports torch."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.made_runs import made_run, made_sweep

from diffq_exp.report import main
from diffq_exp.results.plots import PICTURES

FILES = {*PICTURES, "runs.csv", "table.md", "table.tex", "index.html"}
SWEEP = "pareto_digits-1a2b3c4d"
COMMAND = [sys.executable, "-u", "-m", "diffq_exp.report"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    made_sweep(outputs, seeds=2)
    made_run(outputs, ["quantizer=qat", "bits=12"])  # none of the sweep's
    return outputs


def report(*words, out):
    return main([*map(str, words), "--out", str(out)])


def test_a_report_of_everything(sweep, tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert report(sweep, out=tmp_path) == 0
    text = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "mine.txt"}
    assert "digits, digits_cnn" in text and "QAT" in text and str(tmp_path) in text
    assert "1 diverged, 1 failed" in text and "missing" not in text
    assert ",qat,0,0.003,12," in (tmp_path / "runs.csv").read_text()


def test_the_report_of_a_sweep_lies_in_a_folder_of_its_own(tmp_path, capsys):
    made_sweep(tmp_path, seeds=1)
    made_run(tmp_path, ["quantizer=qat", "bits=12"])
    assert main([str(tmp_path), "--sweep", SWEEP]) == 0
    text = capsys.readouterr().out
    assert "2 missing" in text and "bits=12" not in text
    assert {path.name for path in (tmp_path / "report" / SWEEP).iterdir()} == FILES
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "report").rglob("*.*")}
    assert main([str(tmp_path), "--sweep", SWEEP]) == 0  # again, over the earlier one
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in before.items() if path.is_file())


def test_nothing_finished_is_said_and_listed(tmp_path, capsys):
    for name in PICTURES:
        (tmp_path / name).write_text("of an earlier report")
    made_run(tmp_path / "runs", ["seed=1"], "failed", reason="no luck")
    assert report(tmp_path / "runs", out=tmp_path) == 1
    text = capsys.readouterr().out
    assert "no finished run to report: 1 failed" in text and "no luck" in text
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "runs"} - {*PICTURES}


def test_an_empty_folder(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no finished run to report\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter", "bitz=3"], "no run has a key 'bitz'; did you mean 'bits'?"),
        (
            ["--filter", "bits"],
            "--filter bits: key=value, and in quotes 'key<3', 'key>=3' or 'key!=value' are allowed",
        ),
        (["--filter", "bits<few"], "--filter bits<few: a number is expected after <"),
        (["--filter", "bits>12"], "no run has it; of bits there are 2, 3, 4, 5, 8, 12"),
        (["--filter", "bitz<3"], "no run has a key 'bitz'; did you mean 'bits'?"),
        (["--filter", "bits=7"], "no run has it; of bits there are 2, 3, 4, 5, 8, 12"),
        (["--average-over", "sead"], "did you mean 'seed'?"),
        (["--by", "quantiser"], "did you mean 'quantizer'?"),
        (["--sweep", "pareto_digits"], f"did you mean '{SWEEP}'?"),
        (["--size", "large"], "invalid choice: 'large'"),
        (["--sizes", "0.1", "-1"], "'-1'; a number above 0 is allowed"),
        (["--sizes", "nan"], "'nan'; a number above 0 is allowed"),
        (["--figure-size", "0", "2"], "'0'; a number above 0 is allowed"),
        (["--font", "DejaVu Serf"], "did you mean 'DejaVu Serif'?"),
        (["--list", "--prune"], "not allowed with argument"),
        (["--typo"], "unrecognized arguments: --typo"),
        (["nowhere"], "nowhere: no such folder"),
        (["--out", __file__], "File exists"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(sweep, capsys, words, message):
    try:
        code = main([str(sweep), *words])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and message in err


def listed(outputs, capsys, *words):
    """Folders of the runs that were chosen, without their signatures: {"digits-digits_cnn-qat": 8, ...}"""
    assert main([str(outputs), "--list", *words]) == 0
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    return Counter(Path(row).name.rpartition("-")[0].rpartition("-")[2] for row in rows)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["--filter", "quantizer=qat"], {"qat": 9}),
        (["--filter", "quantizer=qat,ptq"], {"qat": 9, "ptq": 8}),
        (["--filter", "quantizer=qat,lsq", "bits=8"], {"qat": 2, "lsq": 2}),
        (["--filter", "bits=8", "--filter", "quantizer=lsq", "seed=1"], {"lsq": 1}),
        (["--filter", "penalty=0.30"], {"diffq": 2}),
        (["--filter", "bits>3", "bits<=5", "quantizer=qat"], {"qat": 2}),
        (["--filter", "quantizer!=qat,ptq,lsq", "seed<1"], {"diffq": 5, "none": 1}),
        (["--sweep", SWEEP, "--filter", "lr<0.01", "quantizer=qat", "seed>=1"], {"qat": 5}),
        (["--sweep", SWEEP, "--filter", "seed=0"], {"qat": 5, "ptq": 4, "lsq": 5, "diffq": 5, "none": 1}),
        (["--sweep", SWEEP, "--filter", "lr=0.003", "quantizer=qat"], {"qat": 10}),  # two may have it
    ],
)
def test_filters(sweep, capsys, monkeypatch, words, chosen):
    monkeypatch.setattr("diffq_exp.results.publish._WIDTH", 300)  # for the long folders of tests
    assert listed(sweep, capsys, *words) == chosen


def test_sizes_by_and_size(sweep, tmp_path, capsys):
    assert report(sweep, "--sizes", "0.2", "--by", "quantizer", "lr", "--size", "true", out=tmp_path) == 0
    text = capsys.readouterr().out
    assert "% at 0.200 MB" in text and "QAT lr=0.003" in text and "by the method's formula" in text


def test_the_list(sweep, capsys):
    assert main([str(sweep), "--list", "--filter", "quantizer=none"]) == 0
    assert capsys.readouterr().out.count("finished") == 3  # two, and the title
    assert not (sweep / "report").exists()


def test_prune_without_a_terminal_deletes_nothing(sweep, capsys):
    before = {path.name for path in sweep.iterdir()}
    assert main([str(sweep), "--prune"]) == 0
    assert "there is no terminal" in capsys.readouterr().out
    assert {path.name for path in sweep.iterdir()} == before


@pytest.mark.parametrize(
    ("answer", "left"), [("y", 0), ("yes", 0), ("", 1), ("n", 1), ("no, yes", 1), (EOFError, 1)]
)
def test_prune_asks(tmp_path, monkeypatch, answer, left):
    made_run(tmp_path, status="failed")

    def typed(question):
        assert "delete 1 failed runs" in question and "[y/N]" in question
        if answer is EOFError:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main([str(tmp_path), "--prune"]) == 0
    assert len(list(tmp_path.iterdir())) == left


def test_torch_is_never_imported(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    code = "import sys; from diffq_exp.report import main; main(sys.argv[1:]);"
    code += "print([name for name in ('torch', 'hydra', 'omegaconf', 'wandb') if name in sys.modules])"
    out = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], env=ENVIRONMENT, text=True)
    assert out.endswith("[]\n")


@pytest.mark.long
def test_a_terminal_of_ascii(tmp_path):
    for seed in (0, 1):
        made_run(tmp_path, ["quantizer=qat", f"seed={seed}"])
    env = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*COMMAND, str(tmp_path)], env=env, capture_output=True)
    assert done.returncode == 0 and b" ? " in done.stdout and done.stderr == b""


@pytest.mark.long
def test_a_thousand_runs_in_time(tmp_path):
    """The bounds are those of the issue, on a machine that does other things too."""
    for seed in range(8):
        for bits in range(2, 127):
            made_run(tmp_path, ["quantizer=qat", f"bits={bits}", f"seed={seed}"], epochs=20)
    started = time.monotonic()
    words = [*COMMAND, str(tmp_path)]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        table = time.monotonic() - started
        child.stdout.read()
    assert "digits" in first and child.returncode == 0
    assert table < 15 and time.monotonic() - started < 90
    assert (tmp_path / "report" / "index.html").stat().st_size < 10 * 10**6
