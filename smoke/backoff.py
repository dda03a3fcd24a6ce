"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter: each delay is uniform between 0 and a ceiling that grows up to a cap.

    Full jitter spreads the clients that a dying node sets free at the same instant over the whole interval, so the
    next node does not meet them all at once ("Exponential Backoff And Jitter", AWS Architecture Blog).

    The usual doubling makes a client that has been refused for half a second, which is what a virtual address takes to
    move, wait for 0.4 s more on average and 1.1 s in one case of twenty. Growing by half it is 0.2 and 0.5 s, for at
    most ten tries in the first second.

    Args:
        base: the first ceiling, seconds.
        growth: of the ceiling from one try to the next, as a factor.
        cap: the highest ceiling, seconds.
        uniform: draws a number between two bounds; replaced in tests.
    """

    def __init__(
        self,
        base: float = 0.1,
        growth: float = 1.5,
        cap: float = 5.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base = base
        self._growth = growth
        self._cap = cap
        self._uniform = uniform
        self._ceiling = min(base, cap)

    def next(self) -> float:
        """Return the delay before the next try, in seconds, and raise the ceiling."""
        delay = self._uniform(0.0, self._ceiling)
        self._ceiling = min(self._cap, self._ceiling * self._growth)
        return delay

    def reset(self) -> None:
        """Begin again at the base: the broker has proven that it works."""
        self._ceiling = min(self._base, self._cap)
