"""What the balancers say of their servers while a stream flows."""

from __future__ import annotations

import threading
import time
from http.client import HTTPException

from smoke import balancer_stats
from smoke.deployment import Balancer, Deployment
from smoke.history import Event, History, Kind

# How often a balancer is asked, in seconds: some milliseconds of its time, and as exact as the reader's eye.
EVERY = 0.1
# How long a balancer has to answer, in seconds: one that does not is shown as silent.
PATIENCE = 1.0

# What is written of every server of a balancer that does not answer.
SILENT = "silent"


class Watcher:
    """Writes what balancers say anew into a history, from threads of its own, for as long as the block lasts.

    Each balancer has a thread, since one that is frozen must not hide what the others say.

    Args:
        deployment: whose balancers to ask.
        history: takes the events `server` (client: the balancer, where: the server, detail: its status).
    """

    def __init__(self, deployment: Deployment, history: History) -> None:
        self._history = history
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=[balancer], name=f"watch {balancer.name}", daemon=True)
            for balancer in deployment.balancers
        ]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, balancer: Balancer) -> None:
        known: dict[str, str] = {}
        while not self._end.is_set():
            try:
                seen = balancer_stats.statuses(balancer, timeout=PATIENCE)
            except (OSError, HTTPException, KeyError, ValueError):
                # Not there, or not whole because the balancer was killed while it answered.
                seen = dict.fromkeys(known, SILENT)
            now = time.monotonic()
            for event in changes(known, seen, balancer.name, now):
                self._history(event)
            known = seen
            self._end.wait(EVERY)


def changes(known: dict[str, str], seen: dict[str, str], balancer: str, now: float) -> list[Event]:
    """Return an event for each server of which a balancer says something else than before."""
    return [
        Event(now, Kind.server, balancer, where=server, detail=status)
        for server, status in seen.items()
        if known.get(server) != status
    ]
