"""The words of a sweep: grids against scikit-learn's, typed sweeps against Hydra's own, and both together."""

from collections import Counter

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ParameterGrid

from diffq_exp.command.overrides import grid_overrides, merged, overrides_of_jobs, parse

KEYS = st.sampled_from(["seed", "lr", "noise", "optimizer.momentum", "+model.width", "experiment"])
TEXTS = st.text("ab0 ,'\"=()[]{}$:\\*.#", max_size=6) | st.sampled_from(["null", "true", "1", "range(3)", "a b"])
SCALARS = st.integers(-9, 9) | st.floats(-10, 10) | st.booleans() | st.none() | TEXTS
VALUES = SCALARS | st.lists(st.integers() | st.sampled_from(["*.bias", "a b", "a,b"]), max_size=2)
GRIDS = st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=3)
PLAIN_GRIDS = st.dictionaries(KEYS, st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=4)
YAMLS = ["adam", "adamw", "sgd"]


def parsed(words):
    return [parse(word) for word in words]


def jobs(typed=(), grid=None):
    return overrides_of_jobs(merged(parsed(typed), parsed(grid_overrides(grid or {}))), lambda group: YAMLS)


def settings_of(job):
    """What the words of a job set: {key: value}."""
    return {one.get_key_element(): one.value() for one in parsed(job)}


def counted(combinations):
    return Counter(repr(sorted(one.items())) for one in combinations)


# ---- grids ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(grid=GRIDS)
def test_a_grid_has_the_combinations_of_scikit_learns(grid):
    assert counted(map(settings_of, jobs(grid=grid))) == counted(ParameterGrid(grid))


@settings(deadline=None)
@given(grid=PLAIN_GRIDS, typed=PLAIN_GRIDS)
def test_what_is_typed_replaces_what_the_grid_says_of_the_same_key(grid, typed):
    if "experiment" in grid:
        typed.pop("experiment", None)
    assert counted(map(settings_of, jobs(grid_overrides(typed), grid))) == counted(ParameterGrid({**grid, **typed}))


def test_the_last_key_changes_fastest():
    assert jobs(["seed=0,1"], {"lr": [1, 2], "bits": 3}) == [
        ("lr=1", "bits=3", "seed=0"), ("lr=1", "bits=3", "seed=1"),
        ("lr=2", "bits=3", "seed=0"), ("lr=2", "bits=3", "seed=1"),
    ]  # fmt: skip


def test_a_text_that_is_no_list_stands_as_it_would_be_typed():
    assert jobs(grid={"seed": "range(2)", "optimizer": "adam,sgd"}) == [
        ("seed=0", "optimizer=adam"), ("seed=0", "optimizer=sgd"),
        ("seed=1", "optimizer=adam"), ("seed=1", "optimizer=sgd"),
    ]  # fmt: skip


def test_what_is_no_list_is_one_value():
    assert jobs(grid={"bits": 3, "clip": None, "+dataset.more": {"x": ["a b", 1]}}) == [
        ("bits=3", "clip=null", "+dataset.more={x:[a b,1]}"),
    ]  # fmt: skip


def test_the_experiment_is_the_grids_where_it_names_one_and_what_was_typed_elsewhere():
    assert jobs(["experiment=mine"], {"experiment": "digits", "seed": [0]}) == [("experiment=digits", "seed=0")]
    assert jobs(["experiment=mine"], {"seed": [0]}) == [("seed=0", "experiment=mine")]


@pytest.mark.parametrize("typed", ["optimizer.momentum=5", "+optimizer.momentum=5", "++optimizer.momentum=5"])
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_it_is_the_same_key_with_and_without_a_sign(typed, sign):
    assert jobs([typed], {f"{sign}optimizer.momentum": [1, 2]}) == [(typed,)]


def test_a_key_that_is_taken_out_has_no_values_of_the_grid():
    assert jobs(["~optimizer.nesterov"], {"optimizer.nesterov": [True, False]}) == [("~optimizer.nesterov",)]


# ---- what is typed ----------------------------------------------------------------------------------------------

TYPED = [
    ["seed=0,1", "lr=0.1,1e-3", "noise=uniform"],
    ["seed=range(3)"],
    ["seed=range(0,10,3)"],
    ["seed=choice(3,1)"],
    ["seed=sort(3,1,2)"],
    ["lr=tag(few,choice(1,2))"],
    ["exclude=[a,b],[]", "clip=null,1"],
    ["dataset.root='/a b','/c,d'", "+dataset.more={x:1},{y:[2,3]}"],
    ["dataset.root=a\\,b,c", "float16=true,false"],
    ["+model.width=1,2", "++task.label_smoothing=0,0.1"],
    ["experiment=digits,quick", "optimizer@spare=adam,sgd"],
    ["init_from=", "lr=${bits_lr},1"],
    [],
]


@pytest.mark.parametrize("typed", TYPED, ids=" ".join)
def test_typed_words_give_the_jobs_of_hydras_own_sweeper(typed):
    (batch,) = BasicSweeper.split_arguments(parsed(typed), max_batch_size=None)
    assert jobs(typed) == [tuple(job) for job in batch]


def test_a_glob_stands_for_the_yamls_that_it_matches():
    assert jobs(["optimizer=glob(adam*)"]) == [("optimizer=adam",), ("optimizer=adamw",)]
    assert jobs(["optimizer=glob(*, exclude=adam*)"]) == [("optimizer=sgd",)]


def test_of_a_key_typed_twice_the_last_word_counts():
    assert jobs(["seed=1,2", "lr=1", "seed=3"]) == [("seed=3", "lr=1")]


def test_a_list_with_blanks_says_how_it_is_typed():
    with pytest.raises(ValueError, match=r"without blanks: seed=0,1$"):
        parse("seed=0,")


@pytest.mark.parametrize("word", ["penalty=${nope", "model.name=a${b", "exclude=[${nope]"])
def test_an_interpolation_without_its_end_is_told(word):
    with pytest.raises(ValueError, match=r"not understood; \$\{ needs its \}$"):
        parse(word)


@pytest.mark.parametrize("word", ["noise", "seed=choice()", ""])
def test_a_word_that_is_none_is_named(word):
    with pytest.raises(ValueError, match="not understood; a key is set by key=value") as error:
        parse(word)
    assert str(error.value).startswith(repr(word))
