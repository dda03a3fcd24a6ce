"""Whether a history is one that a correct cluster and correct clients can have: a pure function over events.

As a command, to judge stored histories: python -m smoke.judge FILE...
"""

from __future__ import annotations

import argparse
import math
import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import NoReturn

from smoke.history import Event, History, Kind
from smoke.messages import Identity

# A message, whatever the attempt: its producer and its sequence number.
Key = tuple[str, int]
# A publication of a message: its producer, its sequence number, its attempt. Identity says the same, but hashing so
# many dataclasses takes several times as long.
Copy = tuple[str, int, int]

# How many messages a sentence names before it only counts them.
NAMED = 5
# More attempts to connect within a second than this are a storm. Our backoff makes seven or so, and ten at worst.
MOST_ATTEMPTS = 10
# Pauses that differ less than this (standard deviation by mean) are one pause, and clients that lost their connections
# together come back together. Full jitter has 0.58 and more.
LEAST_JITTER = 0.2
# So many pauses have to be known before their spread says anything.
ENOUGH_PAUSES = 8


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
class Attempts:
    """How one client tried to connect.

    Attributes:
        count: attempts, successful or not.
        peak: most attempts within one second.
        jitter: how the pauses from a loss to the next attempt differ: standard deviation by mean; None if there are
            too few. How long an attempt takes until it fails is not the client's choice, and does not count.
    """

    count: int
    peak: int
    jitter: float | None

    @property
    def complaint(self) -> str:
        """What is wrong with that, if anything."""
        if self.peak > MOST_ATTEMPTS:
            return f"{self.peak} attempts within a second"
        if self.jitter is not None and self.jitter < LEAST_JITTER:
            return f"{self.count} attempts in step, spread {self.jitter:.2f}"
        return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history amounts to.

    Each message that was published is delivered, dead-lettered, lost, returned or unknown, and only one of these.
    Messages without an identity, from producers that are not ours, do not count at all.

    Attributes:
        confirmed: messages for which the broker took responsibility. A basic.ack after a basic.return of the same
            attempt is none (RabbitMQ documentation, "Consumer Acknowledgements and Publisher Confirms").
        delivered: messages that reached a consumer at least once.
        dead_lettered: messages that a queue gave up, and that were delivered from where it sent them.
        lost: confirmed, and neither delivered nor dead-lettered. A failure.
        lost_where: prefix, middle or tail of what their producers sent; all if nothing of it was delivered.
        vanished: attempts that were confirmed and never delivered, although another attempt of their message was: the
            broker lost them, and only its producer's doubt saved the message. A failure.
        unacknowledged: with an attempt that was confirmed and delivered, but never processed to the end: handed to a
            consumer that lost its channel or gave it back, and not handed out again. A failure, once producers and
            consumers were stopped.
        abandoned: published and never confirmed by any attempt, although the producer says that it left nothing
            undone. A failure.
        unknown: published, neither confirmed nor returned nor delivered; the broker never promised anything.
        returned: published, but no queue took it. Neither confirmed nor delivered by another attempt.
        phantom: attempts delivered that were never published, or were returned. A failure.
        corrupt: attempts delivered with another content than they were published with. A failure.
        redelivered: duplicates that the broker announced by the redelivered flag.
        republished: duplicates that the producer made by another attempt.
        unexplained: attempts delivered more than once without the flag; RabbitMQ guarantees that a message without
            it was not seen before (documentation, "Reliability Guide"). A failure.
        misordered: first attempts that a consumer got after a later message of their producer; what it had before
            comes again, and does not count. A failure; empty unless it was asked for.
        nacked: attempts that the broker refused.
        delivery_count: the highest that a delivery came with.
        delivery_gap: the longest silence between deliveries.
        confirm_gap: the longest silence between confirms.
        reconnects: connections after the first one, of each client.
        attempts: to connect, of each client.
        stalls: how long the suite itself stood still, each time in the window: silences that are as long say nothing
            of the deployment.
    """

    confirmed: int
    delivered: int
    dead_lettered: tuple[Key, ...]
    lost: tuple[Key, ...]
    lost_where: str
    vanished: tuple[Identity, ...]
    unacknowledged: tuple[Key, ...]
    abandoned: tuple[Key, ...]
    unknown: tuple[Key, ...]
    returned: tuple[Key, ...]
    phantom: tuple[Identity, ...]
    corrupt: tuple[Identity, ...]
    redelivered: int
    republished: int
    unexplained: tuple[Identity, ...]
    misordered: tuple[Identity, ...]
    nacked: int
    delivery_count: int
    delivery_gap: Gap
    confirm_gap: Gap
    reconnects: dict[str, int]
    attempts: dict[str, Attempts]
    stalls: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the cluster and its clients kept all their promises."""
        return not self.failures()

    def failures(self) -> list[str]:
        """Name each promise that was broken, the worst first."""
        messages: list[tuple[str, Sequence[Key] | Sequence[Identity]]] = [
            (f"LOST {{}} ({self.lost_where})", self.lost),
            ("CONFIRMED and never delivered, but for another attempt {}", self.vanished),
            ("NEVER ACKNOWLEDGED {}", self.unacknowledged),
            ("GIVEN UP by their producer {}", self.abandoned),
            ("NEVER PUBLISHED but delivered {}", self.phantom),
            ("DAMAGED {}", self.corrupt),
            ("DELIVERED TWICE without the redelivered flag {}", self.unexplained),
            ("OUT OF ORDER {}", self.misordered),
        ]
        return [text.format(_name(concerned)) for text, concerned in messages if concerned] + [
            f"RETRY STORM of {client}: {attempts.complaint}"
            for client, attempts in sorted(self.attempts.items())
            if attempts.complaint
        ]

    def sentence(self) -> str:
        """Say it in one sentence, the failures first."""
        parts = self.failures()
        parts.append(f"{self.confirmed} confirmed, {self.delivered} delivered" + ("" if parts else ", nothing lost"))
        if self.dead_lettered:
            parts.append(f"{len(self.dead_lettered)} dead-lettered")
        parts.append(f"duplicates: {self.redelivered} by redelivery, {self.republished} by publishing again")
        parts.append(f"{self.nacked} nacked, {len(self.returned)} returned, {len(self.unknown)} unknown")
        if self.delivery_count:
            parts.append(f"highest delivery count {self.delivery_count}")
        silences = f"deliveries {self.delivery_gap.seconds:.2f} s, of confirms {self.confirm_gap.seconds:.2f} s"
        parts.append(f"longest silence of {silences}")
        reconnects = ", ".join(f"{client} {count}" for client, count in sorted(self.reconnects.items()))
        parts.append(f"reconnects: {reconnects or 'none'}")
        if self.stalls:
            parts.append(f"the suite itself stood still for {', '.join(self.stalls)}")
        return "; ".join(parts) + "."


def judge(
    events: Iterable[Event], *, since: float | None = None, until: float | None = None, ordered: bool = False
) -> Verdict:
    """Judge a history.

    The order of the events does not matter, so the histories of several processes can be put together.

    Args:
        events: all of them, from the first publication on.
        since: where the window for the gaps begins (time.monotonic(), seconds); None is the first event of the kind.
            The silence before the first event in the window counts.
        until: where it ends; None is the last event of the kind. The silence after the last event counts.
        ordered: insist on the order, which only a queue with one consumer at a time promises
            (x-single-active-consumer).
    """
    seen: defaultdict[Kind, list[Event]] = defaultdict(list)
    for event in events:
        seen[event.kind].append(event)

    published = _copies(seen[Kind.publish])
    returned = _copies(seen[Kind.returned])
    promised = _copies(seen[Kind.confirm]) - returned
    confirmed = _keys(promised)
    possible = published - returned

    deliveries = [event for event in seen[Kind.delivery] if event.producer]
    handed_out = _copies(deliveries)
    dead = _keys(_copies(event for event in deliveries if event.dead_lettered) & possible)
    arrived = handed_out & possible
    delivered = _keys(arrived) - dead

    lost = confirmed - delivered - dead
    # Without the flag it is a first delivery, and there is at most one by each queue. Counting does not depend on the
    # order in which the threads of two consumers happened to report.
    fresh: defaultdict[tuple[Copy, str], int] = defaultdict(int)
    queues = set()
    for event in deliveries:
        place = ((event.producer, event.sequence, event.attempt), event.dead_lettered)
        queues.add(place)
        if not event.redelivered:
            fresh[place] += 1
    twice = {place: count - 1 for place, count in fresh.items() if count > 1}

    silent = _keys(published) - confirmed - delivered - dead
    settled = _copies(chain(seen[Kind.ack], seen[Kind.rejected]))
    return Verdict(
        confirmed=len(confirmed),
        delivered=len(delivered),
        dead_lettered=tuple(sorted(dead)),
        lost=tuple(sorted(lost)),
        lost_where=_where(lost, delivered),
        vanished=_identities(copy for copy in promised - handed_out if copy[:2] not in lost),
        unacknowledged=tuple(sorted(_keys((promised & arrived) - settled) & delivered)),
        abandoned=tuple(sorted(_abandoned(seen[Kind.publish], seen[Kind.finished]) - confirmed)),
        unknown=tuple(sorted(silent - _keys(returned))),
        returned=tuple(sorted(silent & _keys(returned))),
        phantom=_identities(handed_out - possible),
        corrupt=_identities(_copies(event for event in deliveries if event.corrupt)),
        redelivered=len(deliveries) - len(queues) - sum(twice.values()),
        republished=len(arrived) - len(_keys(arrived)),
        unexplained=_identities({copy for copy, _ in twice}),
        misordered=_identities(_misordered(deliveries)) if ordered else (),
        nacked=len(seen[Kind.nack]),
        delivery_count=max((event.delivery_count for event in deliveries), default=0),
        delivery_gap=_gap(seen[Kind.delivery], since, until),
        confirm_gap=_gap(seen[Kind.confirm], since, until),
        reconnects=_reconnects(seen[Kind.connected]),
        attempts=_attempts(seen[Kind.connecting], seen[Kind.lost]),
        stalls=tuple(
            event.detail
            for event in seen[Kind.stalled]
            if (since is None or since <= event.at) and (until is None or event.at <= until)
        ),
    )


def disturbed(
    events: Iterable[Event], clients: Collection[str], *, since: float, until: float = math.inf
) -> list[Event]:
    """Return what clients felt that had nothing to do with the victim of a fault, and should have felt nothing.

    Args:
        events: a history.
        clients: their names.
        since: when the fault began (time.monotonic(), seconds).
        until: when it was over.

    Returns:
        Each loss of a connection and each cancellation, in the order of time.
    """
    felt = (Kind.lost, Kind.cancelled)
    return sorted(
        (event for event in events if event.kind in felt and event.client in clients and since <= event.at <= until),
        key=_at,
    )


def unimpressed(
    events: Iterable[Event], clients: Collection[str], *, since: float, until: float = math.inf
) -> list[str]:
    """Return those clients, of those that should have felt a fault, that did not: their test would be vacuous.

    Args:
        events: a history.
        clients: their names.
        since: when the fault began (time.monotonic(), seconds).
        until: when it was over.
    """
    felt = (Kind.lost, Kind.cancelled, Kind.nack, Kind.returned, Kind.blocked)
    noticed = {event.client for event in events if event.kind in felt and since <= event.at <= until}
    return sorted(set(clients) - noticed)


def lockstep(events: Iterable[Event], *, since: float) -> float:
    """Return how many clients come back in step: the share of those that chose the most frequent first pause.

    What they choose counts, to 10 ms, and not when they come: on a busy machine clients without any jitter, too, come
    one after the other.

    Args:
        events: of many clients that lost their connections together.
        since: when that was (time.monotonic(), seconds).
    """
    first: dict[str, str] = {}
    for event in sorted(events, key=_at):
        if event.kind is Kind.backoff and event.at >= since:
            first.setdefault(event.client, event.detail)
    return max(Counter(first.values()).values(), default=0) / max(1, len(first))


def _at(event: Event) -> float:
    return event.at


def _copies(events: Iterable[Event]) -> set[Copy]:
    return {(event.producer, event.sequence, event.attempt) for event in events if event.producer}


def _keys(copies: Iterable[Copy]) -> set[Key]:
    return {(producer, sequence) for producer, sequence, _ in copies}


def _identities(copies: Iterable[Copy]) -> tuple[Identity, ...]:
    return tuple(Identity(*copy) for copy in sorted(copies))


def _where(lost: set[Key], delivered: set[Key]) -> str:
    bounds: dict[str, tuple[int, int]] = {}
    if lost:
        for producer, sequence in delivered:
            first, last = bounds.get(producer, (sequence, sequence))
            bounds[producer] = (min(first, sequence), max(last, sequence))
    words = set()
    for producer, sequence in lost:
        if producer not in bounds:
            words.add("all")
            continue
        first, last = bounds[producer]
        words.add("prefix" if sequence < first else "tail" if sequence > last else "middle")
    return " and ".join(word for word in ("all", "prefix", "middle", "tail") if word in words)


def _abandoned(published: Iterable[Event], finished: Iterable[Event]) -> set[Key]:
    content = {event.producer for event in finished}
    return {(event.producer, event.sequence) for event in published if event.producer in content}


def _misordered(deliveries: Iterable[Event]) -> set[Copy]:
    found: set[Copy] = set()
    latest: dict[tuple[str, str], int] = {}
    had: set[tuple[str, Copy]] = set()
    # Each consumer by itself: two threads do not report in the order of what happened.
    for event in sorted(deliveries, key=_at):
        copy = (event.producer, event.sequence, event.attempt)
        # What the producer sends again comes late; what a consumer gets again says nothing of the order in the queue.
        if event.attempt > 1 or event.dead_lettered or (event.redelivered and (event.client, copy) in had):
            continue
        had.add((event.client, copy))
        if event.sequence < latest.get((event.client, event.producer), 0):
            found.add(copy)
        else:
            latest[event.client, event.producer] = event.sequence
    return found


def _gap(events: Iterable[Event], since: float | None, until: float | None) -> Gap:
    times = sorted(
        event.at for event in events if (since is None or event.at >= since) and (until is None or event.at <= until)
    )
    times = [*([] if since is None else [since]), *times, *([] if until is None else [until])]
    seconds, began = max(
        ((after - before, before) for before, after in pairwise(times)),
        key=lambda gap: gap[0],
        default=(0.0, times[0] if times else 0.0),
    )
    return Gap(seconds, began)


def _reconnects(connections: Iterable[Event]) -> dict[str, int]:
    count: defaultdict[str, int] = defaultdict(lambda: -1)
    for event in connections:
        count[event.client] += 1
    return dict(count)


def _attempts(tries: Iterable[Event], losses: Iterable[Event]) -> dict[str, Attempts]:
    lives: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(chain(tries, losses), key=_at):
        lives[event.client].append(event)
    return {client: _paced(life) for client, life in lives.items()}


def _paced(life: Sequence[Event]) -> Attempts:
    moments = [event.at for event in life if event.kind is Kind.connecting]
    peak = max(
        (index + 1 - bisect_left(moments, moment - 1, hi=index) for index, moment in enumerate(moments)), default=0
    )
    pauses = [
        after.at - before.at
        for before, after in pairwise(life)
        if before.kind is Kind.lost and after.kind is Kind.connecting
    ]
    jitter = None
    if len(pauses) >= ENOUGH_PAUSES and (mean := fmean(pauses)) > 0:
        jitter = pstdev(pauses) / mean
    return Attempts(len(moments), peak, jitter)


def _name(items: Sequence[Key] | Sequence[Identity]) -> str:
    names = [str(item) if isinstance(item, Identity) else f"{item[0]}/{item[1]}" for item in items[:NAMED]]
    rest = len(items) - len(names)
    return f"{len(items)}: " + ", ".join(names) + (f" and {rest} more" if rest else "")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 if all is well, 1 if not, 2 for a file that is no history."""
    parser = _Parser(prog="judge", description="Judge what clients recorded; several files are one history.")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a stored history, .gz if compressed")
    parser.add_argument(
        "--since", type=float, metavar="SECONDS", help="count silences from here on (default: the first fault)"
    )
    parser.add_argument("--until", type=float, metavar="SECONDS", help="and up to here (default: the last publication)")
    parser.add_argument("--ordered", action="store_true", help="insist on the order: the queue had one consumer")
    parser.epilog = "SECONDS are counted from the first event of the history."
    given = parser.parse_args(arguments)
    try:
        events = [event for file in given.files for event in History.load(file).events()]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not events:
        parser.error("nothing happened in this history")
    begin = min(event.at for event in events)
    faults = [event.at for event in events if event.kind is Kind.fault]
    publications = [event.at for event in events if event.kind is Kind.publish]
    verdict = judge(
        events,
        since=min(faults, default=None) if given.since is None else begin + given.since,
        until=max(publications, default=None) if given.until is None else begin + given.until,
        ordered=given.ordered,
    )
    print(verdict.sentence())
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
