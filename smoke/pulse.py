"""Whether the suite itself stood still: then its clients did, and a silence says nothing of the deployment."""

from __future__ import annotations

import threading
import time

from smoke import journal
from smoke.history import Event, History, Kind

# Seconds between two beats.
EVERY = 0.05
# From so many seconds on a late beat is written down; a busy machine delays some by a few tenths.
LATE = 0.5


class Pulse:
    """Wakes up regularly for as long as the block lasts, and writes into a history when it did so late.

    That happens where the machine, or all threads of the suite, got no processor: on one that shares its cores, or is
    paused by its hypervisor.

    Args:
        history: takes the events `stalled` (client: the suite, detail: how long, in seconds).
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._end.wait(EVERY):
            now = time.monotonic()
            if now - before - EVERY >= LATE:
                self._history(Event(now, Kind.stalled, journal.SUITE, detail=f"{now - before:.2f} s"))
            before = now
