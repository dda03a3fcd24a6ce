"""What happened, as the clients saw it: the record on which the judge decides."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from smoke.messages import Identity


class Kind(StrEnum):
    """What an event says."""

    # enum.auto() would hide that these words are the file format.
    publish = "publish"  # a producer handed an attempt to the connection
    confirm = "confirm"  # the broker took responsibility for it (basic.ack)
    nack = "nack"  # the broker did not (basic.nack)
    returned = "returned"  # no queue took it (basic.return)
    delivery = "delivery"  # a consumer received it
    ack = "ack"  # a consumer processed and acknowledged it
    stale = "stale"  # the channel of the delivery was gone: not acknowledged, the broker delivers it again
    rejected = "rejected"  # a consumer refused it: not ours to read, or the handler failed
    connected = "connected"  # AMQP connection open
    ready = "ready"  # topology declared, consuming or publishing
    lost = "lost"  # connection lost or not established
    cancelled = "cancelled"  # the broker cancelled the consumer
    blocked = "blocked"  # connection.blocked
    unblocked = "unblocked"  # connection.unblocked
    backoff = "backoff"  # waiting before the next try


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one client.

    Attributes:
        at: time.monotonic() in seconds; comparable between processes of one machine, containers included.
        kind: what happened.
        client: the name of the producer or consumer that saw it.
        producer: of the message concerned, if any.
        sequence: of the message concerned.
        attempt: of the message concerned.
        redelivered: the broker's flag on a delivery.
        detail: for people.
    """

    at: float
    kind: Kind
    client: str
    producer: str = ""
    sequence: int = 0
    attempt: int = 0
    redelivered: bool = False
    detail: str = ""


class Reporter:
    """Turns what one client sees into events.

    Args:
        client: the name of the client.
        observe: takes the events; called from the client's threads, and must not raise.
    """

    def __init__(self, client: str, observe: Callable[[Event], None]) -> None:
        self._client = client
        self._observe = observe

    def __call__(
        self, kind: Kind, identity: Identity | None = None, *, redelivered: bool = False, detail: str = ""
    ) -> None:
        """Report an event that happens now."""
        producer, sequence, attempt = ("", 0, 0)
        if identity is not None:
            producer, sequence, attempt = identity.producer, identity.sequence, identity.attempt
        self._observe(
            Event(
                time.monotonic(),
                kind,
                self._client,
                producer,
                sequence,
                attempt,
                redelivered=redelivered,
                detail=detail,
            )
        )


class History:
    """Collects the events of any number of clients; safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Record an event."""
        with self._lock:
            self._events.append(event)

    def events(self) -> tuple[Event, ...]:
        """Return what was recorded so far, in order of recording."""
        with self._lock:
            return tuple(self._events)

    def since(self, at: float) -> list[Event]:
        """Return the events since a moment (time.monotonic(), seconds), in order of recording.

        Reads from the end, so that asking again and again while a history grows costs only what is new.
        """
        recent: list[Event] = []
        for event in reversed(self.events()):
            # Threads record a little out of order.
            if event.at < at - 1:
                break
            if event.at >= at:
                recent.append(event)
        return recent[::-1]

    def save(self, path: Path) -> None:
        """Write one JSON object per line.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_text("".join(json.dumps(asdict(event)) + "\n" for event in self.events()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what save() wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is not an event; the message names the line.
        """
        history = cls()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                fields = json.loads(line)
                history(Event(**{**fields, "kind": Kind(fields["kind"])}))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not an event: {error}") from error
        return history
