"""Names in the order that a person expects."""

import pytest

from diffq_exp.common.names import few, natural


@pytest.mark.parametrize(
    "names",
    [
        ["group_size=1", "group_size=8", "group_size=16"],
        ["0.05", "0.3", "3", "30"],
        ["lr=1e-05", "lr=0.001", "lr=1"],
        ["a", "a 2 b 3", "a 2 b 20", "a 10", "b"],
        ["diffq", "lsq", "none", "ptq"],
    ],
)
def test_numbers_in_names_count_as_numbers(names):
    assert sorted({*names}, key=natural) == names


def test_a_name_of_many_digits():
    assert natural("9" * 100_000)


def test_the_first_of_many_names():
    assert few(["a"]) == "'a'" and few(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert few(["a", "b", "c", "d", "e"]) == "'a', 'b', 'c' and 2 more"
