"""Report what a conversion leaves out as a list of messages, which functions pass on to their caller.

The filters and the handler of the warnings module belong to the whole process.  What other threads do to them must not
decide whether a source may be removed, so only the outermost function turns messages into warnings.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def warn(messages: list[str], stacklevel: int = 2) -> None:
    """Issue each message as a UserWarning; `stacklevel` counts from the caller, which is 1."""
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 1)


@contextmanager
def collected(messages: list[str] | None) -> Iterator[list[str]]:
    """Give the caller's list, or without one a new list that becomes warnings at the end."""
    own: list[str] = []
    yield own if messages is None else messages
    warn(own, stacklevel=4)  # past contextlib and the function that uses this
