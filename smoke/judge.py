"""Whether a history is one that a correct cluster and correct clients can have: a pure function over events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from smoke.history import Event, Kind
from smoke.messages import Identity

# A message, whatever the attempt: its producer and its sequence number.
Key = tuple[str, int]

# How many messages a sentence names before it only counts them.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Gap:
    """A silence.

    Attributes:
        seconds: how long it lasted.
        began: time.monotonic() when it began, in seconds.
    """

    seconds: float
    began: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history amounts to.

    Each message that was published is delivered, lost, returned or unknown, and only one of these. Messages without
    an identity, from producers that are not ours, do not count at all.

    Attributes:
        confirmed: messages for which the broker took responsibility. A basic.ack after a basic.return of the same
            attempt is none (RabbitMQ documentation, "Consumer Acknowledgements and Publisher Confirms").
        delivered: messages that reached a consumer at least once.
        lost: confirmed, and not delivered. A failure.
        lost_where: prefix, middle or tail of what their producers sent; all if nothing of it was delivered.
        unacknowledged: confirmed and delivered, but never processed to the end: handed to a consumer that lost its
            channel, and not handed out again. A failure, once producers and consumers were stopped.
        unknown: published, neither confirmed nor returned nor delivered; the broker never promised anything.
        returned: published, but no queue took it. Neither confirmed nor delivered by another attempt.
        phantom: attempts delivered that were never published, or were returned. A failure.
        redelivered: duplicates that the broker announced by the redelivered flag.
        republished: duplicates that the producer made by another attempt.
        unexplained: attempts delivered more than once without the flag; RabbitMQ guarantees that a message without
            it was not seen before (documentation, "Reliability Guide"). A failure.
        nacked: attempts that the broker refused.
        delivery_gap: the longest silence between deliveries.
        confirm_gap: the longest silence between confirms.
        reconnects: connections after the first one, of each client.
    """

    confirmed: int
    delivered: int
    lost: tuple[Key, ...]
    lost_where: str
    unacknowledged: tuple[Key, ...]
    unknown: tuple[Key, ...]
    returned: tuple[Key, ...]
    phantom: tuple[Identity, ...]
    redelivered: int
    republished: int
    unexplained: tuple[Identity, ...]
    nacked: int
    delivery_gap: Gap
    confirm_gap: Gap
    reconnects: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, invented, forgotten or duplicated without explanation."""
        return not (self.lost or self.unacknowledged or self.phantom or self.unexplained)

    def sentence(self) -> str:
        """Say it in one sentence, the failures first."""
        parts = []
        if self.lost:
            parts.append(f"LOST {_name(self.lost)} ({self.lost_where})")
        if self.unacknowledged:
            parts.append(f"NEVER ACKNOWLEDGED {_name(self.unacknowledged)}")
        if self.phantom:
            parts.append(f"NEVER PUBLISHED but delivered {_name(self.phantom)}")
        if self.unexplained:
            parts.append(f"DELIVERED TWICE without the redelivered flag {_name(self.unexplained)}")
        parts.append(f"{self.confirmed} confirmed, {self.delivered} delivered" + (", nothing lost" if self.ok else ""))
        parts.append(f"duplicates: {self.redelivered} by redelivery, {self.republished} by publishing again")
        parts.append(f"{self.nacked} nacked, {len(self.returned)} returned, {len(self.unknown)} unknown")
        silences = f"deliveries {self.delivery_gap.seconds:.2f} s, of confirms {self.confirm_gap.seconds:.2f} s"
        parts.append(f"longest silence of {silences}")
        reconnects = ", ".join(f"{client} {count}" for client, count in sorted(self.reconnects.items()))
        parts.append(f"reconnects: {reconnects or 'none'}")
        return "; ".join(parts) + "."


def judge(events: Iterable[Event], *, since: float | None = None, until: float | None = None) -> Verdict:
    """Judge a history.

    The order of the events does not matter, so the histories of several processes can be put together.

    Args:
        events: all of them, from the first publication on.
        since: where the window for the gaps begins (time.monotonic(), seconds); None is the first event of the kind.
            The silence before the first event in the window counts.
        until: where it ends; None is the last event of the kind. The silence after the last event counts.
    """
    seen: defaultdict[Kind, list[Event]] = defaultdict(list)
    for event in events:
        seen[event.kind].append(event)

    published = _identities(seen[Kind.publish])
    returned = _identities(seen[Kind.returned])
    confirmed = _keys(_identities(seen[Kind.confirm]) - returned)
    possible = published - returned

    copies: defaultdict[Identity, list[bool]] = defaultdict(list)
    for event in seen[Kind.delivery]:
        if event.producer:
            copies[_identity(event)].append(event.redelivered)
    phantom = copies.keys() - possible
    delivered = _keys(copies.keys() & possible)

    lost = confirmed - delivered
    # Without the flag it is a first delivery, and there is at most one. Counting does not depend on the order in
    # which the threads of two consumers happened to report.
    unexplained = {identity: flags.count(False) - 1 for identity, flags in copies.items() if flags.count(False) > 1}
    extra = sum(len(flags) - 1 for flags in copies.values())

    silent = _keys(published) - confirmed - delivered
    settled = _keys(_identities([*seen[Kind.ack], *seen[Kind.rejected]]))
    return Verdict(
        confirmed=len(confirmed),
        delivered=len(delivered),
        lost=tuple(sorted(lost)),
        lost_where=_where(lost, delivered),
        unacknowledged=tuple(sorted((confirmed & delivered) - settled)),
        unknown=tuple(sorted(silent - _keys(returned))),
        returned=tuple(sorted(silent & _keys(returned))),
        phantom=_sorted(phantom),
        redelivered=extra - sum(unexplained.values()),
        republished=len(copies.keys() & possible) - len(delivered),
        unexplained=_sorted(unexplained),
        nacked=len(seen[Kind.nack]),
        delivery_gap=_gap(seen[Kind.delivery], since, until),
        confirm_gap=_gap(seen[Kind.confirm], since, until),
        reconnects=_reconnects(seen[Kind.connected]),
    )


def _identity(event: Event) -> Identity:
    return Identity(event.producer, event.sequence, event.attempt)


def _identities(events: Iterable[Event]) -> set[Identity]:
    return {_identity(event) for event in events if event.producer}


def _keys(identities: Iterable[Identity]) -> set[Key]:
    return {(identity.producer, identity.sequence) for identity in identities}


def _sorted(identities: Iterable[Identity]) -> tuple[Identity, ...]:
    return tuple(sorted(identities, key=lambda identity: (identity.producer, identity.sequence, identity.attempt)))


def _where(lost: set[Key], delivered: set[Key]) -> str:
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for producer, sequence in delivered:
        sequences[producer].append(sequence)
    words = set()
    for producer, sequence in lost:
        arrived = sequences.get(producer)
        if not arrived:
            words.add("all")
        elif sequence < min(arrived):
            words.add("prefix")
        elif sequence > max(arrived):
            words.add("tail")
        else:
            words.add("middle")
    return " and ".join(word for word in ("all", "prefix", "middle", "tail") if word in words)


def _gap(events: Iterable[Event], since: float | None, until: float | None) -> Gap:
    times = sorted(
        event.at for event in events if (since is None or event.at >= since) and (until is None or event.at <= until)
    )
    times = [*([] if since is None else [since]), *times, *([] if until is None else [until])]
    gaps = [Gap(after - before, before) for before, after in pairwise(times)]
    return max(gaps, key=lambda gap: gap.seconds, default=Gap(0.0, times[0] if times else 0.0))


def _reconnects(connections: Iterable[Event]) -> dict[str, int]:
    count: defaultdict[str, int] = defaultdict(lambda: -1)
    for event in connections:
        count[event.client] += 1
    return dict(count)


def _name(items: Sequence[Key] | Sequence[Identity]) -> str:
    names = [str(item) if isinstance(item, Identity) else f"{item[0]}/{item[1]}" for item in items[:NAMED]]
    rest = len(items) - len(names)
    return f"{len(items)}: " + ", ".join(names) + (f" and {rest} more" if rest else "")
