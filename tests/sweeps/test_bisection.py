"""The largest ratio that is good enough is found, whatever it is."""

import pytest

from diffq_exp.sweeps.bisection import CLOSE, search_ratios


def searched(largest, probes=20, **known):
    """The ratios that a search tries where those up to `largest` are good."""
    ratios, tried = search_ratios(probes, **known), []
    if (ratio := next(ratios, None)) is None:
        return []
    while True:
        tried.append(ratio)
        try:
            ratio = ratios.send(ratio <= largest)
        except StopIteration:
            return tried


@pytest.mark.parametrize("largest", [1.3, 3, 16, 17, 100, 356, 5000])
def test_the_best_is_close_to_the_largest(largest):
    tried = searched(largest)
    best = max(ratio for ratio in tried if ratio <= largest)
    assert largest / best <= CLOSE * 1.01 and len(tried) <= 12, tried
    assert len(set(tried)) == len(tried)


def test_it_asks_for_the_same_runs_again():
    assert searched(200) == searched(200) and all(float(f"{ratio:.3g}") == ratio for ratio in searched(200))


def test_no_more_probes_than_allowed():
    assert searched(100, probes=3) == [16, 64, 256]


def test_it_ends_where_all_or_none_are_good():
    assert searched(1e9)[-1] <= 1e5 and searched(0.5)[-1] >= 1


def test_it_begins_between_what_is_known():
    assert searched(200, good=100, bad=400) == [200, 283, 238, 218]
    assert searched(200, good=100)[:2] == [400, 200] and searched(3, bad=8)[0] == 2.83
    assert searched(200, good=200, bad=210) == [] and searched(1, bad=1.05) == []


def test_a_search_that_goes_on_asks_for_the_same_ratios():
    tried = searched(200)
    for done in range(1, len(tried)):
        good = max((ratio for ratio in tried[:done] if ratio <= 200), default=1)
        bad = min((ratio for ratio in tried[:done] if ratio > 200), default=1e5)
        assert searched(200, good=good, bad=bad) == tried[done:]
