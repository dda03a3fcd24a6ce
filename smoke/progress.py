"""Says on the terminal what happens while a test runs, without getting into the way of what pytest prints."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from typing import TextIO

from smoke import journal
from smoke.history import Kind

# How often the line on a terminal is renewed, and how often a line is written where there is none, in seconds.
EVERY = 0.25
NOW_AND_THEN = 30.0
# Over how many seconds the rate is taken.
RECENT = 1.0

# Make sure that there is a line below this one, and go back: "index" scrolls at the bottom without a carriage return.
_ROOM = "\x1bD\x1b[A"
# Save the position, go to the beginning of the line below, erase it.
_BELOW = "\x1b7\x1b[B\r\x1b[K"
_BACK = "\x1b8"


class Progress:
    """Writes progress for as long as the block lasts, and takes it back.

    Args:
        terminal: where a line is kept up to date below the cursor, whatever pytest has written before it; None if
            there is no terminal.
        write_line: writes a line of its own where there is none.
        expected: how long the test took the last time, in seconds, if that is known.
    """

    def __init__(
        self, terminal: TextIO | None, write_line: Callable[[str], None], expected: float | None = None
    ) -> None:
        self._terminal = terminal
        self._write_line = write_line
        self._expected = expected
        self._began = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        if self._terminal is None:
            while not self._end.wait(NOW_AND_THEN):
                self._write_line(f"  {status(self._began, self._expected)}")
            return
        self._terminal.write(_ROOM)
        while not self._end.wait(EVERY):
            width = shutil.get_terminal_size().columns
            self._write(f"  {status(self._began, self._expected)}"[: width - 1])
        self._write("")

    def _write(self, text: str) -> None:
        assert self._terminal is not None
        self._terminal.write(f"{_BELOW}\x1b[2m{text}\x1b[m{_BACK}")
        self._terminal.flush()


def status(began: float, expected: float | None = None) -> str:
    """Say how long it has been, how long it will be, what is being done, and how messages flow.

    Args:
        began: when the test began (time.monotonic(), seconds).
        expected: how long it is thought to take, in seconds.
    """
    now = time.monotonic()
    parts = [f"{now - began:3.0f} s"]
    if expected is not None and expected > now - began:
        parts.append(f"about {expected - (now - began):.0f} s left")
    if action := journal.under_way():
        parts.append(f"{action.what} (for {now - action.began:.0f} s)")
    if stream := journal.flowing():
        recent = stream.history.since(now - RECENT)
        published, delivered = (
            sum(event.kind is kind for event in recent) / RECENT for kind in (Kind.publish, Kind.delivery)
        )
        parts.append(f"{published:.0f} published/s, {delivered:.0f} delivered/s")
    return "  ·  ".join(parts)
