"""What the suite itself does, beside what the clients see: written into the history of every stream that flows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from smoke.history import Event, History, Kind
from smoke.judge import Verdict
from smoke.topology import QueueType

# Who the events come from that no client and no balancer saw.
SUITE = "suite"


@dataclass(slots=True)
class Recording:
    """A stream, from its beginning on, as a report needs it.

    Attributes:
        history: of its clients, with what the suite did meanwhile.
        queue_type: of its queue.
        rate: messages per second that it means to publish.
        names: of the nodes in the inventory, by their Erlang names.
        verdict: the last one asked for, if any.
        since: where the window for the gaps of that verdict begins (time.monotonic(), seconds).
        until: where it ends.
        kept: that verdict says what applications feel. Of a stream that proves something else, such as that broken
            clients are found out, it does not.
        gate: the longest silence that was promised, in seconds, if any was.
    """

    history: History
    queue_type: QueueType
    rate: float
    names: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    since: float = 0.0
    until: float = 0.0
    kept: bool = False
    gate: float | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is being done to the deployment.

    Attributes:
        what: in an operator's words.
        began: time.monotonic(), seconds.
    """

    what: str
    began: float


@dataclass(slots=True)
class _Journal:
    lock: threading.Lock = field(default_factory=threading.Lock)
    recordings: list[Recording] = field(default_factory=list)
    open: list[Recording] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


_journal = _Journal()


@contextmanager
def recording(entry: Recording) -> Iterator[None]:
    """Keep a recording, and write into its history what the suite does within the block."""
    with _journal.lock:
        _journal.recordings.append(entry)
        _journal.open.append(entry)
    try:
        yield
    finally:
        with _journal.lock:
            _journal.open.remove(entry)


def take() -> list[Recording]:
    """Return the recordings since the last call, and forget them."""
    with _journal.lock:
        taken, _journal.recordings = _journal.recordings, []
    return taken


def remark(what: str) -> None:
    """Tell the reader of the report something about the test that runs: what its figures do not say."""
    print(what, flush=True)
    with _journal.lock:
        _journal.remarks.append(what)


def take_remarks() -> list[str]:
    """Return the remarks since the last call, and forget them."""
    with _journal.lock:
        taken, _journal.remarks = _journal.remarks, []
    return taken


def flowing() -> Recording | None:
    """Return the stream that flows now, the latest one if there are several."""
    with _journal.lock:
        return _journal.open[-1] if _journal.open else None


def note(kind: Kind, detail: str) -> None:
    """Write an event of the suite's own, with the present time, into the histories of the streams that flow."""
    event = Event(time.monotonic(), kind, SUITE, detail=detail)
    with _journal.lock:
        for entry in _journal.open:
            entry.history(event)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Note when something that is done to the deployment begins and ends."""
    action = Action(what, time.monotonic())
    with _journal.lock:
        _journal.actions.append(action)
    note(Kind.action, what)
    try:
        yield
    finally:
        note(Kind.done, what)
        with _journal.lock:
            _journal.actions.remove(action)


@contextmanager
def fault(what: str) -> Iterator[None]:
    """Note that something is broken during the block."""
    note(Kind.fault, what)
    try:
        yield
    finally:
        note(Kind.healed, "over")


def under_way() -> Action | None:
    """Return what is being done now, the latest beginning if there are several."""
    with _journal.lock:
        return _journal.actions[-1] if _journal.actions else None


def keep(verdict: Verdict, gate: float | None) -> None:
    """Note that a stream got its final verdict, and what was promised for it, in seconds, if anything was."""
    with _journal.lock:
        for entry in _journal.recordings:
            if entry.verdict is verdict:
                entry.kept, entry.gate = True, gate
