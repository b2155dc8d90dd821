"""scripts/benchmark.py: its parts at tiny sizes, and the arithmetic of its figures. No figure is judged here."""

import json
import sys
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarks import common, growth, growth_plot, memory, output, startup, steps
from benchmarks import gpu as gpu_part
from benchmarks.common import THEIRS, Context, Row, over
from benchmarks.variants import Trainee, Variant, attach
from helpers.run_configs import TINY
from torch import nn

CPU = torch.device("cpu")
WITH = pytest.param(True, marks=pytest.mark.skipif(not THEIRS, reason="diffq is not installed"), id="diffq")
EITHER = pytest.mark.parametrize("diffq", [WITH, pytest.param(False, id="without")])


def context(diffq: bool = False) -> Context:
    return Context(CPU, quick=True, diffq=diffq)


@pytest.fixture(autouse=True)
def no_diffq_unless_wanted(request, monkeypatch):
    """Where a test measures without diffq, importing it fails."""
    if not getattr(request.node, "callspec", None) or not request.node.callspec.params.get("diffq"):
        monkeypatch.setitem(sys.modules, "diffq", None)


# ---- steps ------------------------------------------------------------------------------------------------------


@EITHER
def test_a_step_trains_weights_and_logits(diffq):
    torch.manual_seed(0)
    base, rows = nn.Linear(64, 64), torch.randn(4, 64)
    for whose in ("plain", "here", *(["diffq"] if diffq else [])):
        trainee = Trainee(Variant(whose), base, lambda model: model(rows).square().mean(), CPU, min_size=0)
        before = {name: param.detach().clone() for name, param in trainee.model.named_parameters()}
        taken = trainee.timed(2)
        after = dict(trainee.model.named_parameters())
        assert ("weight_diffq" in after) == (whose != "plain")
        assert not any(torch.equal(after[name], before[name]) for name in after)
        assert 0 <= taken.logits < taken.step
    assert base.weight.grad is None  # all were copies


@EITHER
def test_train_step_and_evaluation(diffq):
    here = context(diffq)
    train, evaluated = steps.train_step(here, steps.BATCH_32), steps.evaluation(here)
    shown = [row for row in train.rows if ", group " in row.what]
    assert [row.goal for row in shown] == ["<= 1.1", "<= 1.1", "<= 1.2", "<= 1.2"]
    seconds = train.data["seconds"]
    ratio = over(seconds["here gaussian group 1"], seconds["plain"]).median
    assert shown[2].detail["ratio"]["median"] == ratio and shown[2].met == (ratio <= 1.2)
    rates = [row for row in train.rows if ", rate, " in row.what]
    ratio = over(seconds["rate at 1"], seconds["plain"]).median
    assert [row.goal for row in rates] == ["<= 1.15"] * 2 and rates[1].detail["ratio"]["median"] == ratio
    beside = [shown[0].diffq, shown[2].diffq, evaluated.rows[1].diffq]
    assert all((text == "skipped") != diffq for text in beside)
    assert len(evaluated.rows) == 4 and evaluated.rows[0].met is None
    assert "optimizer of the logits takes" in train.notes[0]


@EITHER
def test_gpu_part_runs_on_the_cpu(diffq, monkeypatch):
    monkeypatch.setattr(gpu_part, "SETTINGS", gpu_part.SETTINGS[:1])
    found = gpu_part.gpu(context(diffq))
    assert {row.goal for row in found.rows} == {"", "<= 1.05", "<= 0.1", "<= 1.02", "<= 2"}
    shares = [row for row in found.rows if "share of diffq's" in row.what]
    assert len(shares) == 1 and all((row.here == "skipped") != diffq for row in shares)
    assert "skipped: only CUDA tells" in [row.here for row in found.rows]


def test_share_of_the_time_that_diffq_adds():
    seconds = {"plain": [1.0, 1.0], "here": [1.01, 1.01], "plain contiguous": [1.0, 1.0]}
    seconds = {**seconds, "here gaussian group 8": [1.02] * 2, "diffq gaussian group 8 contiguous": [1.25] * 2}
    ours, theirs = Variant("here"), Variant("diffq", contiguous=True)
    row = steps._share_row("it", ours, theirs, seconds, 0.1)
    assert (row.detail["share"], row.met) == (pytest.approx(0.08), True)


def test_peaks_on_a_gpu_are_beyond_those_of_the_same_layout(monkeypatch):
    """In copies of the weights that ours quantizes: 400 bytes here."""
    peaks = {"plain": 1000.0, "plain contiguous": 1100.0, "diffq gaussian group 8 contiguous": 2500.0}
    monkeypatch.setattr(
        gpu_part,
        "_peak",
        lambda _context, _setting, one: (peaks.get(one.name, 1720.0), 400.0 * (one.whose == "here")),
    )
    rows = gpu_part.peak_memory(Context(torch.device("cuda"), quick=True, diffq=True), gpu_part.SETTINGS[0]).rows
    assert [(row.here, row.diffq, row.met) for row in rows] == [("1.80", "3.50", True), ("1.80", "", True)]


def test_peak_asks_cuda_after_the_first_steps(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5)
    setting = steps.sized(context(), gpu_part.SETTINGS[0])
    peak, quantized = gpu_part._peak(context(), setting, Variant("here"))
    assert (peak, asked) == (5.0, ["reset"])
    model = steps.network(setting, CPU)
    assert 0.9 < quantized / sum(param.nbytes for param in model.parameters()) < 1


def test_rate_is_measured_with_noise_and_rounded():
    for progress in (0.0, 1.0):
        model = nn.Linear(8, 8)
        quantizer = attach(Variant("rate", progress=progress), model, min_size=1.0)
        assert quantizer.rounding == bool(progress) and quantizer.quantized_names == ["weight"]


# ---- memory, start-up -------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(not memory.RESET.exists(), reason="no /proc that tells peaks of memory")
def test_peak_memory_of_a_process():
    plain, here = (memory.peaks_of(Variant(whose), pairs=1) for whose in ("plain", "here"))
    weights = 2 * memory.WIDE * memory.NARROW * 4
    assert plain["weights"] == here["weights"] == weights
    assert plain["step"] > 2 * weights  # the weights, and their momentum or gradients
    assert here["learned"] == pytest.approx(4 / 8)
    assert here["forward"] - plain["forward"] > 0.9 * weights  # the noisy weights at least


def test_memory_rows_are_copies_beyond_plain(monkeypatch):
    views = {"plain": (300.0, 0.0), "here gaussian group 8": (450.0, 210.0), "here uniform group 8": (400.0, 150.0)}
    monkeypatch.setattr(memory.os, "access", lambda *_: True)
    monkeypatch.setattr(
        memory,
        "peaks_of",
        lambda one, _pairs: dict(zip(("step", "forward", "weights", "learned"), (*views[one.name], 100.0, 0.5))),  # noqa: B905
    )
    rows = memory.memory(context()).rows
    assert [(row.here, row.met) for row in rows] == [
        ("1.50", True),
        ("1.00", True),
        ("2.10", False),
        ("1.50", True),
    ]
    assert [row.diffq for row in rows] == ["skipped", "", "skipped", ""]


def test_startup_is_that_of_the_real_commands(tmp_path):
    for words, code in startup.SHORT.values():
        assert startup.wall(words, code, tmp_path) > 0
    with pytest.raises(RuntimeError, match=r"epohcs=3 ended with 2:\nerror: epohcs=3"):
        startup.wall(("epohcs=3",), 0, tmp_path)


def test_epochs_are_taken_off_a_run(monkeypatch, tmp_path):
    def run(words, code, _folder):
        folder = next(word for word in words if word.startswith("hydra.run.dir=")).partition("=")[2]
        Path(folder, "metrics.jsonl").write_text('{"seconds": 1.5}\n{"seconds": 2.0}\n')
        return 10.0

    monkeypatch.setattr(startup, "wall", run)
    assert startup.beside_epochs(("tracking=none",), tmp_path) == 6.5


@pytest.mark.long
def test_a_real_run_on_few_images(tmp_path):
    words = (*startup.DIGITS["a digits run, no tracking"], *TINY, "epochs=1")
    assert startup.beside_epochs(words, tmp_path, epochs=1) > 0


# ---- growth -----------------------------------------------------------------------------------------------------


@EITHER
def test_growth_and_its_picture(diffq, tmp_path):
    found = growth.growth(context(diffq))
    curves = found.data["curves"]
    assert [point["at"] for point in curves["group size"]["here"]] == [1, 8, 0]
    assert len(curves["weights"]["diffq"]) == (2 if diffq else 0)
    assert all((row.diffq == "skipped") != diffq for row in found.rows)
    growth_plot.draw(found.data, tmp_path / "one.svg")
    growth_plot.draw(found.data, tmp_path / "two.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text() and "<svg" in text


# ---- what is printed and written --------------------------------------------------------------------------------


@pytest.mark.long
def test_the_command_prints_and_writes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(common, "THEIRS", False)
    monkeypatch.setattr(benchmark, "Context", lambda device, quick: Context(device, quick, diffq=False))
    monkeypatch.setattr(output.os, "getloadavg", lambda: (0.7, 0, 0))
    code = benchmark.main(["--quick", "--only", "growth", "profile", "--out", str(tmp_path)])
    printed, progress = capsys.readouterr()
    assert code == 0 and "growth: " in progress and (tmp_path / "benchmark.md").read_text() in printed
    for text in (
        "load average was 0.70",
        "| skipped |",
        "diffq: skipped, not installed",
        "(growth.svg)",
        "| share |",
    ):
        assert text in printed, text
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert list(written["parts"]) == ["growth", "profile"] and written["load_average"] == 0.7
    assert written["hardware"]["cores"] and written["versions"]["torch"] and written["quick"] is True
    assert (tmp_path / "growth.svg").stat().st_size > 1000


def test_a_row_says_whether_its_goal_is_met():
    rows = [Row("a", "1", "", "<= 2", True), Row("b", "3", "4", "<= 2", False), Row("c", "5")]
    assert output._table(rows, "0.2.4").splitlines() == [
        "| what | here | diffq 0.2.4 | goal | met |",
        "| --- | --- | --- | --- | --- |",
        "| a | 1 |  | <= 2 | yes |",
        "| b | 3 | 4 | <= 2 | **no** |",
        "| c | 5 |  |  |  |",
    ]


def test_no_gpu_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--device", "cuda", "--out", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == "error: --device cuda: torch finds no GPU here\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "gpu"], "--device cpu has the parts train32, "),
        (["--device", "cuda", "--only", "data"], "--device cuda has the parts gpu"),
        (["--only", "datum"], "invalid choice: 'datum'"),
    ],
)
def test_a_part_that_is_not_there(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(words)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
