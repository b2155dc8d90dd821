"""Which runs a condition keeps."""

import pytest
from helpers.made_runs import made_run

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.filters import filtered


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """QAT of 2, 3 and 8 bits, and a float32 network of 20 epochs, the others of 1."""
    folder = tmp_path_factory.mktemp("outputs")
    for bits, mb, accuracy in ((2, 0.1, 0.8), (3, 0.2, 0.9), (8, 0.5, 0.95)):
        words = ["quantizer=qat", f"bits={bits}", f"fold={str(bits == 2).lower()}", "epochs=1", "exclude=[]"]
        made_run(folder, words, mb=mb, accuracy=accuracy)
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
        ("test.accuracy!=0.95", [0.1, 0.2, 1.0]),
        ("fold=true", [0.1]),
        ("fold!=true", [0.2, 0.5, 1.0]),
        ("fold=1,false", [0.2, 0.5]),
        ("fold=True", [0.1]),
        ("fold=FALSE", [0.2, 0.5]),
        ("fold=null", [1.0]),
        ("fold!=Null", [0.1, 0.2, 0.5]),
        ("exclude=[]", [0.1, 0.2, 0.5]),
        ("epochs!=true", [0.1, 0.2, 0.5, 1.0]),
        ("epochs=1.0", [0.1, 0.2, 0.5]),
    ],
)
def test_conditions(runs, condition, sizes):
    assert sorted(run.size("file") for run in filtered(runs, condition)) == sizes


@pytest.mark.parametrize(
    "condition", ["bits", "bits<", "<3", "bits<3>", "bits<many", "bits<true", "fold=1", "epochs=true"]
)
def test_mistakes_are_errors(runs, condition):
    with pytest.raises(ValueError, match=r"^--filter " + condition):
        filtered(runs, condition)


@pytest.mark.parametrize("sign", ["=", "!=", ">", "<="])
@pytest.mark.parametrize(
    ("key", "nearest"), [("test.acuracy", "test.accuracy"), ("size_mb.fiel", "size_mb.file"), ("bitts", "bits")]
)
def test_a_key_that_no_run_has_is_an_error_with_the_nearest(runs, key, sign, nearest):
    with pytest.raises(ValueError, match=rf"no run has a \w+ '{key}'; did you mean '{nearest}'\?$"):
        filtered(runs, f"{key}{sign}1")


def test_without_a_near_one_all_are_named(runs):
    with pytest.raises(ValueError, match=r"'val\.qqqqqqqqq'; there are: val\.accuracy, val\.loss$"):
        filtered(runs, "val.qqqqqqqqq!=1")
