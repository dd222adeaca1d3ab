"""A lock that processes take on a file, so that two of them do not do the same work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import IO


@contextlib.contextmanager
def exclusive(file: IO[bytes], on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds an exclusive lock on an open file; `on_wait` is called where another process holds it first."""
    try:
        import fcntl
    except ImportError:  # Windows: files still appear whole, and of two builders the last one wins
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(file, fcntl.LOCK_EX)
    yield
