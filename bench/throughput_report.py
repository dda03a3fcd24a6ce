"""What docs/benchmarks.md says of throughput."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bench.report import Machine, spread, table, times, versions_table

TEXT = """## Throughput of the clients

Made by `make bench` on {date}; everything was measured {times}, on five hosts of the [lab](lab.md) with the settings of
`inventory/lab`. The clients run on this machine, too, one at a time.

{machine}

{versions}

Messages a second: median, and least to most where that differs. Each measurement is {count} persistent messages of
about 60 bytes in a quorum queue of three members, from before a client connects to after it has closed its connection.
*Direct* is to the node that leads the queue; the balancer gives a client any of the three.

### Publishing

{publishing}

*Confirmed* means that a majority of the members has a message on disk; *sent* only that the broker has read it. What is
sent without confirms is lost with a connection or a leader, and nobody is told. pika's `BlockingConnection` waits for
each confirm before it sends the next message. `smoke/producer.py` also gives every message an identity and a checksum.

### Consuming

{consuming}

The messages wait in the queue, and each is acknowledged on its own. `smoke/consumer.py` also compares checksums, and
runs its handler in a thread of its own.

{missing}{complaints}"""


@dataclass(frozen=True, slots=True)
class Rate:
    """One measurement.

    Attributes:
        client: the name of the client.
        consumes: it consumes; otherwise it publishes.
        path: how it reaches the broker.
        per_second: messages; None if it could not be measured.
        complaint: why not.
    """

    client: str
    consumes: bool
    path: str
    per_second: float | None = None
    complaint: str = ""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.per_second:.0f}/s" if self.per_second is not None else f"not measured: {self.complaint}"


@dataclass(slots=True)
class Run:
    """A run of the benchmark.

    Attributes:
        machine: where it runs.
        times: how often everything is measured.
        count: messages of one measurement.
        began: when.
        versions: of what the hosts and the clients run.
        missing: why amqp-tools were not measured, if they were not.
        rates: what was measured.
    """

    machine: Machine
    times: int
    count: int
    began: datetime
    versions: dict[str, str]
    missing: str = ""
    rates: list[Rate] = field(default_factory=list)


def section(run: Run) -> str:
    """Return the section of docs/benchmarks.md."""
    complaints = dict.fromkeys(f"- {one.client}, {one.path}: {one.complaint}" for one in run.rates if one.complaint)
    return TEXT.format(
        date=run.began.date().isoformat(),
        times=times(run.times),
        machine=run.machine.table(),
        versions=versions_table(run.versions),
        count=run.count,
        publishing=_rates([one for one in run.rates if not one.consumes]),
        consuming=_rates([one for one in run.rates if one.consumes]),
        missing=f"`amqp-publish` and `amqp-consume` were not measured: {run.missing}.\n\n" if run.missing else "",
        complaints="Could not be measured:\n\n" + "\n".join(complaints) + "\n" if complaints else "",
    )


def _rates(rates: Sequence[Rate]) -> str:
    paths = list(dict.fromkeys(one.path for one in rates))
    return table(
        ("client", *paths),
        [
            (client, *(_cell([one for one in rates if (one.client, one.path) == (client, path)]) for path in paths))
            for client in dict.fromkeys(one.client for one in rates)
        ],
    )


def _cell(rates: Sequence[Rate]) -> str:
    measured = [one.per_second for one in rates if one.per_second is not None]
    missing = f", {len(measured)} of {len(rates)}" if len(measured) < len(rates) else ""
    return spread(measured, "{:.0f}") + missing if measured else "not measured"
