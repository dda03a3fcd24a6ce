"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter: each delay is uniform between 0 and a ceiling that doubles up to a cap.

    Full jitter spreads the clients that a dying node sets free at the same instant over the whole interval, so the
    next node does not meet them all at once ("Exponential Backoff And Jitter", AWS Architecture Blog).

    Args:
        base: the first ceiling, seconds.
        cap: the highest ceiling, seconds.
        uniform: draws a number between two bounds; replaced in tests.
    """

    def __init__(
        self, base: float = 0.1, cap: float = 5.0, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._ceiling = min(base, cap)

    def next(self) -> float:
        """Return the delay before the next try, in seconds, and double the ceiling."""
        delay = self._uniform(0.0, self._ceiling)
        self._ceiling = min(self._cap, self._ceiling * 2)
        return delay

    def reset(self) -> None:
        """Begin again at the base: the broker has proven that it works."""
        self._ceiling = min(self._base, self._cap)
