"""What docs/benchmarks.md says of failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bench.report import Machine, spread, table, times, versions_table
from smoke import gates

TEXT = """## What a failure costs, by settings

Made by `make bench` on {date}; every fault was measured {times} with each of the settings. For each of them five hosts
of the [lab](lab.md) were made anew, three nodes and two balancers with a virtual address.

{machine}

{versions}

The longest silence of deliveries or confirms that a stream of 50 messages/s through the virtual address felt, in
seconds: median, and least to most where that differs. The gate is what is promised for the median (`smoke/gates.py`);
for a frozen node it is {khepri:g} where Khepri keeps the metadata, as in `lan-4.3`.

{silences}

A fault lasts until messages have flowed again for two seconds, and {longest:.0f} s at most; what stands still does so
until its peers have given it up (`net_ticktime`). What the end of a fault does to clients is counted, too. `*`:
messages flowed again only after that end, at least once. `†`: the cluster did not become whole by itself, at least
once, and its nodes had to be restarted.

{lost}

{complaints}### The settings

{settings}

The clients are those of `smoke/` in every case, with a heartbeat of 10 s, whatever the node suggests, and a timeout of
5 s for confirms; standard clients fare worse with settings that leave the detection to them. The virtual address is the
same in every case, and so is what the role `haproxy` always sets: `option redispatch 1`, `retries 3`, TCP keepalive.
Where the values come from stands in `bench/settings`. kolla-ansible and openstack-ansible lead only the management
interface through HAProxy, and their clients know every node: these are the values of its check, applied to AMQP.
"""


@dataclass(frozen=True, slots=True)
class Felt:
    """What clients felt of a fault.

    Attributes:
        settings: the name of the settings.
        fault: the name of the fault.
        silence: the longest one, of deliveries or confirms, in seconds; None if it could not be measured.
        lost: confirmed messages that never arrived.
        recovered: messages flowed again while the fault lasted.
        whole: the deployment became whole by itself once the fault was over.
        complaint: what else was wrong, in one line; why nothing could be measured.
    """

    settings: str
    fault: str
    silence: float | None = None
    lost: int = 0
    recovered: bool = False
    whole: bool = False
    complaint: str = ""

    def __str__(self) -> str:
        """Say it in a line."""
        if self.silence is None:
            return f"not measured: {self.complaint}"
        marks = ("" if self.recovered else ", only after the fault") + ("" if self.whole else ", not whole by itself")
        complaint = f" ({self.complaint})" if self.complaint else ""
        return f"{self.silence:.2f} s, {self.lost} lost{marks}{complaint}"


@dataclass(slots=True)
class Run:
    """A run of the benchmark, as far as it has come.

    Attributes:
        machine: where it runs.
        times: how often each fault is measured.
        longest: seconds that a fault lasts at most.
        began: when.
        gates: what is promised for the profile "lan", in seconds, by the name of the fault.
        versions: of what the hosts run with all settings.
        told: the variables in force, and the versions they chose, by the name of the settings.
        felt: what was measured.
        broken: why settings could not be measured to the end.
    """

    machine: Machine
    times: int
    longest: float
    began: datetime
    gates: Mapping[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    told: dict[str, dict[str, object]] = field(default_factory=dict)
    felt: list[Felt] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def section(run: Run) -> str:
    """Return the section of docs/benchmarks.md."""
    return TEXT.format(
        date=run.began.date().isoformat(),
        times=times(run.times),
        machine=run.machine.table(),
        versions=versions_table(run.versions),
        longest=run.longest,
        khepri=gates.FROZEN,
        silences=_silences(run.felt, run.gates),
        lost=_lost(run.felt),
        complaints=_complaints(run),
        settings=_settings(run.told),
    )


def _silences(felt: Sequence[Felt], promised: Mapping[str, float]) -> str:
    settings = list(dict.fromkeys(one.settings for one in felt))
    return table(
        ("fault", *settings, "gate of `lan`"),
        [
            (
                fault,
                *(_cell([one for one in felt if (one.fault, one.settings) == (fault, name)]) for name in settings),
                str(promised.get(fault, "")),
            )
            for fault in dict.fromkeys(one.fault for one in felt)
        ],
    )


def _cell(felt: Sequence[Felt]) -> str:
    measured = [one for one in felt if one.silence is not None]
    if not measured:
        return "not measured"
    marks = ("" if all(one.recovered for one in measured) else " *") + ("" if all(one.whole for one in felt) else " †")
    missing = f", {len(measured)} of {len(felt)}" if len(measured) < len(felt) else ""
    return spread([one.silence for one in measured if one.silence is not None], "{:.1f}") + missing + marks


def _lost(felt: Sequence[Felt]) -> str:
    lost = [f"{one.lost} with {one.settings}, {one.fault}" for one in felt if one.lost]
    return f"Of the confirmed messages were lost: {'; '.join(lost)}." if lost else "No confirmed message was lost."


def _complaints(run: Run) -> str:
    lines = [f"- {one.settings}, {one.fault}: {one.complaint}" for one in run.felt if one.complaint]
    lines += [f"- {name}, given up: {why}" for name, why in run.broken.items()]
    return "What went wrong besides:\n\n" + "\n".join(dict.fromkeys(lines)) + "\n\n" if lines else ""


def _settings(told: Mapping[str, Mapping[str, object]]) -> str:
    # The profile only says where the others come from.
    names = dict.fromkeys(name for settings in told.values() for name in settings if not name.endswith("_profile"))
    return table(
        ("variable", *told),
        [(f"`{name}`", *(str(settings.get(name, "")) for settings in told.values())) for name in names],
    )
