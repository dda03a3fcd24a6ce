"""What happened, as the clients saw it: the record on which the judge decides."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import IO, Literal, get_type_hints

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
    rejected = "rejected"  # a consumer refused it for good: not ours to read, or damaged
    requeued = "requeued"  # a consumer gave it back to the queue: the handler failed
    connecting = "connecting"  # a client tries an endpoint
    connected = "connected"  # AMQP connection open
    ready = "ready"  # topology declared, consuming or publishing
    lost = "lost"  # connection lost or not established
    cancelled = "cancelled"  # the broker cancelled the consumer
    blocked = "blocked"  # connection.blocked
    unblocked = "unblocked"  # connection.unblocked
    backoff = "backoff"  # waiting before the next try
    finished = "finished"  # a client ended because it was asked to, and says that it left nothing undone
    located = "located"  # the brokers say on which node the connection of a client is
    fault = "fault"  # the suite breaks something now
    healed = "healed"  # the suite has repaired it
    server = "server"  # a balancer says of a server what it did not say before
    action = "action"  # the suite begins to do something to the deployment
    done = "done"  # it has done it
    stalled = "stalled"  # the suite itself stood still until now


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
        delivery_count: how often the broker has delivered it in vain before (x-delivery-count, of quorum queues only).
        dead_lettered: the queue that gave up the message which is delivered (x-first-death-queue), if any did.
        corrupt: what is delivered is not what was published.
        where: the endpoint of a connection, the node on which it was located, the queue of a delivery or a
            cancellation, the server of a balancer.
        detail: for people.
    """

    at: float
    kind: Kind
    client: str
    producer: str = ""
    sequence: int = 0
    attempt: int = 0
    redelivered: bool = False
    delivery_count: int = 0
    dead_lettered: str = ""
    corrupt: bool = False
    where: str = ""
    detail: str = ""


# What an event has unless it says otherwise; a stored history leaves it out.
_DEFAULTS = {field.name: field.default for field in fields(Event)}
_TYPES = get_type_hints(Event)


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
        self,
        kind: Kind,
        identity: Identity | None = None,
        *,
        redelivered: bool = False,
        delivery_count: int = 0,
        dead_lettered: str = "",
        corrupt: bool = False,
        where: str = "",
        detail: str = "",
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
                redelivered,
                delivery_count,
                dead_lettered,
                corrupt,
                where,
                detail,
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

    def after(self, count: int) -> list[Event]:
        """Return what was recorded after so many events."""
        with self._lock:
            return self._events[count:]

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
        """Write one JSON object per line, without what is at its default; compressed if the name ends in .gz.

        Raises:
            OSError: the file cannot be written.
        """
        with _open(path, "wt") as file:
            file.writelines(_line(event) for event in self.events())

    @classmethod
    def load(cls, path: Path) -> History:
        """Read what save() wrote.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is not an event; the message names the line.
        """
        history = cls()
        try:
            with _open(path, "rt") as file:
                for line in file:
                    history(parse(line))
        except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a whole text file: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{len(history._events) + 1}: not an event: {error}") from error
        return history


def append(path: Path, event: Event) -> None:
    """Add an event to a file that History.load() reads, in one write: whoever is killed leaves whole lines.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("ab", buffering=0) as file:
        file.write(_line(event).encode())


def parse(line: str) -> Event:
    """Read a line of a stored history.

    Raises:
        KeyError, TypeError, ValueError: it is not an event.
    """
    said = json.loads(line)
    if not isinstance(said, dict):
        raise TypeError("not a JSON object")
    said["kind"] = Kind(said["kind"])
    for name, value in said.items():
        if type(value) is not _TYPES[name]:
            raise TypeError(f"{name} is {value!r}")
    return Event(**said)


def _open(path: Path, mode: Literal["rt", "wt"]) -> IO[str]:
    if path.suffix == ".gz":
        # Several times faster than the default, for a few more bytes.
        return gzip.open(path, mode, compresslevel=1, encoding="utf-8")
    return path.open(mode, encoding="utf-8")


def _line(event: Event) -> str:
    said = {name: value for name, default in _DEFAULTS.items() if (value := getattr(event, name)) != default}
    return json.dumps(said, separators=(",", ":")) + "\n"
