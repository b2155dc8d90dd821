"""How an error of the first rank gets to the others, which never wait for it in vain."""

import pickle
import threading

import pytest

from diffq_exp.common.files import read_json
from diffq_exp.parallel.ranks import RankLost
from diffq_exp.parallel.sent import outcome_of, received
from diffq_exp.runs.run_folder import FolderBusy
from diffq_exp.training.stopping import Diverged


class Odd(ValueError):
    """Comes back from a pickle as nothing: its constructor takes other arguments."""

    def __init__(self, place, reason):
        super().__init__(f"{place}: {reason}")


class Changed(Exception):
    """Comes back as another one."""

    def __reduce__(self):
        return ValueError, ("something else",)


class Holding(OSError):
    """Holds what no other process can have."""

    def __init__(self):
        super().__init__("in the way")
        self.lock = threading.Lock()


def raising(error):
    def function():
        raise error

    return function


def sent(error):
    value, own, whole = outcome_of(raising(error))
    assert own is error and value is None
    return received(whole)


def test_a_value_gets_there():
    value, error, whole = outcome_of(lambda: {"a": [1, 2.5]})
    assert error is None and received(whole) == (value, None) == ({"a": [1, 2.5]}, None)


@pytest.mark.parametrize("error", [Diverged(3, 7), FolderBusy("busy"), OSError(28, "full", "x"), KeyError("a")])
def test_an_error_gets_there_as_it_is(error):
    value, there = sent(error)
    assert value is None and type(there) is type(error) and str(there) == str(error)
    assert vars(there) == vars(error)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (Odd("here", "why"), ValueError, "rank 0: Odd: here: why"),
        (Holding(), OSError, "rank 0: Holding: in the way"),
        (Changed("as it was"), RankLost, "rank 0: Changed: as it was"),
    ],
)
def test_one_that_does_not_come_back_gets_there_by_its_words(error, kind, words):
    _, there = sent(error)
    assert type(there) is kind and str(there) == words


def test_one_whose_class_is_unknown_there_too(monkeypatch):
    _, _, whole = outcome_of(raising(FolderBusy("busy")))
    monkeypatch.delattr("diffq_exp.runs.run_folder.FolderBusy")
    _, there = received(whole)
    assert str(there) == "rank 0: FolderBusy: busy: another process is at work on this run"


def test_a_value_that_cannot_be_sent_is_an_error_on_all():
    value, error, whole = outcome_of(threading.Lock)
    assert value is None and isinstance(error, TypeError)
    assert isinstance(received(whole)[1], TypeError)


def test_errors_of_this_package_come_back_from_a_pickle(tmp_path):
    with pytest.raises(ValueError) as caught:
        (tmp_path / "x").write_text("{")
        read_json(tmp_path / "x")
    for error in (caught.value, Diverged(1, 2)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
