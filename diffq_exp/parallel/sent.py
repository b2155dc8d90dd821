"""What a function gave or raised on the first rank, as bytes for the others.

Every error gets there: one that cannot be pickled, or read back, by its words. Otherwise the others would wait.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from .ranks import RankLost, Value

KINDS: tuple[type[Exception], ...] = (ValueError, OSError)  # a user's mistake stays one


def outcome_of(function: Callable[[], Value]) -> tuple[Value | None, Exception | None, bytes]:
    """Its value or its error here, and what `received` takes on another rank."""
    try:
        value = function()
        return value, None, pickle.dumps((value, None))
    except Exception as error:
        return None, error, pickle.dumps((None, _sent(error)))


def received(sent: bytes) -> tuple[Any, Exception | None]:
    """The value, or the error."""
    value, failed = pickle.loads(sent)
    if failed is None:
        return value, None
    whole, kind, words = failed
    try:
        error: Exception = pickle.loads(whole)
    except Exception:  # its class is unknown to this process, say
        error = kind(words)
    return None, error


def _sent(error: Exception) -> tuple[bytes, type[Exception], str]:
    """Its pickle, b"" where that does not give it back, and what stands for it then."""
    kind = next((kind for kind in KINDS if isinstance(error, kind)), RankLost)
    try:
        whole = pickle.dumps(error)
        again = pickle.loads(whole)
        same = (type(again), str(again)) == (type(error), str(error))
    except Exception:  # whatever its class does
        same = False
    return whole if same else b"", kind, f"rank 0: {type(error).__name__}: {error}"
