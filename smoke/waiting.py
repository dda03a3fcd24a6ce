"""Waiting for a condition, with a deadline and a word about what was still missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], *, within: float, what: str, every: float = 0.1) -> T:
    """Call a probe until it neither returns something false nor raises an OSError or AssertionError.

    Args:
        probe: returns what is waited for.
        within: seconds after which waiting is over.
        what: what is waited for, for the message.
        every: seconds between calls.

    Raises:
        AssertionError: it did not come true in time; the message says what the last call gave.
    """
    deadline = time.monotonic() + within
    pause = threading.Event()
    while True:
        last: object
        try:
            if result := probe():
                return result
            last = result
        except (OSError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {within:g} s; last seen: {last!r}")
        pause.wait(every)
