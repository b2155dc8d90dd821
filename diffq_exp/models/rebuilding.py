"""Whether networks are made again for weights that are stored: then they are not tried, and nothing is fetched.

They were tried before they were trained. What a file says of a network may be a stranger's: a trial on images of a
size of his choice takes any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_REBUILDING = ContextVar("rebuilding", default=False)


def is_rebuilding() -> bool:
    """Whether this is inside `rebuilding()`."""
    return _REBUILDING.get()


@contextmanager
def rebuilding() -> Iterator[None]:
    """Inside, networks are made for stored weights."""
    token = _REBUILDING.set(True)
    try:
        yield
    finally:
        _REBUILDING.reset(token)
