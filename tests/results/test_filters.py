"""Which runs a condition keeps."""

import pytest
from helpers.made_runs import made_run

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.filters import filtered


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """QAT of 2, 3 and 8 bits, and a float32 network."""
    folder = tmp_path_factory.mktemp("outputs")
    for bits, mb, accuracy in ((2, 0.1, 0.8), (3, 0.2, 0.9), (8, 0.5, 0.95)):
        made_run(folder, ["quantizer=qat", f"bits={bits}"], mb=mb, accuracy=accuracy)
    made_run(folder, ["quantizer=none"], mb=1.0, accuracy=0.96)
    return find_runs([folder])


@pytest.mark.parametrize(
    ("condition", "sizes"),
    [
        ("bits<3", [0.1]),
        ("bits<=3", [0.1, 0.2]),
        ("bits>3", [0.5]),
        ("bits>=2.5", [0.2, 0.5]),
        ("bits=2,8", [0.1, 0.5]),
        ("bits!=2,8", [0.2, 1.0]),
        ("quantizer!=qat", [1.0]),
        ("size_mb.file<0.3", [0.1, 0.2]),
        ("test.accuracy>=0.95", [0.5, 1.0]),
    ],
)
def test_conditions(runs, condition, sizes):
    assert sorted(run.size("file") for run in filtered(runs, condition)) == sizes


@pytest.mark.parametrize("condition", ["bits", "bits<", "<3", "bits<3>", "bits<many", "bits<true", "test.nosuch>0"])
def test_mistakes_are_errors(runs, condition):
    with pytest.raises(ValueError, match=r"^--filter " + condition):
        filtered(runs, condition)
