"""What a stream looked like over time, read from its history: rates, silences, and who was where and in which state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from smoke.history import Event, Kind

# Buckets in which messages are counted: at least so long, in seconds, and at most so many.
FINEST = 0.2
BUCKETS = 240
# A silence counts as a gap from so many missing messages on; a busy machine delays a few.
MISSING = 10
# ... but not below so many seconds.
SHORTEST_GAP = 0.1


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted.

    Attributes:
        begin: time.monotonic(), seconds.
        end: the same; of what never ended, the end of the timeline.
        text: what it was.
    """

    begin: float
    end: float
    text: str = ""

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.begin

    def overlaps(self, other: Span) -> bool:
        """Tell whether both lasted at some moment."""
        return self.begin < other.end and other.begin < self.end


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment, with a word about it."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Lane:
    """What one party was at each time.

    Attributes:
        name: of the party.
        spans: in the order of time; their texts are states.
    """

    name: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """All times are time.monotonic() in seconds.

    Attributes:
        begin: of the first message.
        end: of the last event.
        rate: messages per second that were meant to be published.
        published: when messages were published.
        confirmed: when they were confirmed.
        delivered: when they were delivered.
        gaps: silences of the deliveries.
        marks: when it was broken and healed, in the suite's words; if it says nothing of that, when it touched the
            deployment first, and when it was done with it.
        actions: what the suite did.
        clients: on which node each client was; between connections there is no span.
        servers: what each balancer said of each server.
    """

    begin: float
    end: float
    rate: float
    published: tuple[float, ...]
    confirmed: tuple[float, ...]
    delivered: tuple[float, ...]
    gaps: tuple[Span, ...]
    marks: tuple[Mark, ...]
    actions: Lane
    clients: tuple[Lane, ...]
    servers: tuple[Lane, ...]

    @property
    def zero(self) -> float:
        """From when to count: the first thing that the suite did to the deployment, or else the first message."""
        return self.actions.spans[0].begin if self.actions.spans else self.begin

    @property
    def longest_gap(self) -> Span | None:
        """The longest of the gaps, if there are any."""
        return max(self.gaps, key=lambda gap: gap.seconds, default=None)

    def bucket(self) -> float:
        """Return the length of a bucket that suits the whole timeline, in seconds."""
        return max(FINEST, math.ceil((self.end - self.begin) / BUCKETS * 10) / 10)


def timeline(
    events: Iterable[Event], *, rate: float, until: float | None = None, names: Mapping[str, str] | None = None
) -> Timeline:
    """Read a timeline from a history.

    Args:
        events: of the clients, the suite and the watcher of the balancers.
        rate: messages per second that were meant to be published.
        until: when publishing ended (time.monotonic(), seconds): the silence after that is no gap. None: with the
            last publication.
        names: how to call the nodes on which clients were located; as they call themselves, if it does not say.
    """
    ordered = sorted(events, key=lambda event: event.at)
    seen: defaultdict[Kind, list[Event]] = defaultdict(list)
    for event in ordered:
        seen[event.kind].append(event)
    published = _times(seen[Kind.publish])
    delivered = _times(seen[Kind.delivery])
    begin = published[0] if published else ordered[0].at if ordered else 0.0
    end = ordered[-1].at if ordered else 0.0
    until = until or (published[-1] if published else end)
    actions = _actions(ordered, end)
    return Timeline(
        begin=begin,
        end=end,
        rate=rate,
        published=published,
        confirmed=_times(seen[Kind.confirm]),
        delivered=delivered,
        gaps=gaps([*(at for at in delivered if at <= until), until], max(SHORTEST_GAP, MISSING / rate)),
        marks=tuple(Mark(event.at, event.detail) for event in ordered if event.kind in (Kind.fault, Kind.healed))
        or _outline(actions),
        actions=actions,
        clients=_clients(ordered, end, names or {}),
        servers=_servers(seen[Kind.server], end),
    )


def rates(times: Sequence[float], begin: float, end: float, bucket: float) -> list[float]:
    """Count moments in buckets from begin on, per second; the last bucket may reach beyond the end."""
    counts = [0] * max(1, math.ceil((end - begin) / bucket))
    for at in times:
        if begin <= at < begin + len(counts) * bucket:
            counts[min(int((at - begin) / bucket), len(counts) - 1)] += 1
    return [count / bucket for count in counts]


def gaps(times: Sequence[float], least: float) -> tuple[Span, ...]:
    """Return the silences between moments, in order, that lasted at least so many seconds."""
    return tuple(Span(before, after) for before, after in pairwise(times) if after - before >= least)


def close_up(whole: Timeline) -> Span | None:
    """Return the window around the longest gap, if it is too small to be seen in the whole timeline."""
    gap = whole.longest_gap
    if gap is None:
        return None
    margin = max(0.5, gap.seconds / 2)
    window = Span(max(whole.begin, gap.begin - margin), min(whole.end, gap.end + margin))
    return window if window.seconds < (whole.end - whole.begin) / 3 else None


def _times(events: Iterable[Event]) -> tuple[float, ...]:
    return tuple(event.at for event in events)


def _actions(events: Iterable[Event], end: float) -> Lane:
    began: dict[str, float] = {}
    spans = []
    for event in events:
        if event.kind is Kind.action:
            began[event.detail] = event.at
        elif event.kind is Kind.done and event.detail in began:
            spans.append(Span(began.pop(event.detail), event.at, event.detail))
    spans += [Span(at, end, what) for what, at in began.items()]
    return Lane("suite", tuple(sorted(spans, key=lambda span: span.begin)))


def _outline(actions: Lane) -> tuple[Mark, ...]:
    if not actions.spans:
        return ()
    return (Mark(actions.spans[0].begin, "begins"), Mark(max(span.end for span in actions.spans), "over"))


def _clients(events: Iterable[Event], end: float, names: Mapping[str, str]) -> tuple[Lane, ...]:
    since: dict[str, float] = {}
    where: dict[str, str] = {}
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for event in events:
        client = event.client
        if event.kind is Kind.connected:
            where.pop(client, None)
        elif event.kind is Kind.ready:
            since[client] = event.at
        elif event.kind is Kind.located:
            # Before it is ready, too: declaring takes its time after a failover.
            where[client] = names.get(event.where, event.where)
        elif event.kind is Kind.lost and client in since:
            spans[client].append(Span(since.pop(client), event.at, where.pop(client, "?")))
    for client, at in since.items():
        spans[client].append(Span(at, end, where.get(client, "?")))
    return tuple(Lane(client, tuple(spans[client])) for client in sorted(spans, reverse=True))


def _servers(events: Iterable[Event], end: float) -> tuple[Lane, ...]:
    changes: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        changes[event.client, event.where].append(event)
    several = len({balancer for balancer, _ in changes}) > 1
    return tuple(
        Lane(
            f"{balancer}: {server}" if several else server,
            tuple(
                Span(event.at, following, event.detail)
                for event, following in zip(states, [*(event.at for event in states[1:]), end], strict=True)
            ),
        )
        for (balancer, server), states in sorted(changes.items())
    )
