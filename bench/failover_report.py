"""What docs/benchmarks.md says of failures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from bench.report import Machine, spread, table, times
from smoke import gates

TEXT = """## What a failure costs, by settings

Made by `make bench`, or by `python -m bench failover --only SETTINGS`, which measures a column anew and leaves the
others as they are, and with `--more` adds to its figures; all of them are in `docs/benchmarks/`, and the history of
each fault is in `bench/histories/`, where it was measured. For each line of this table five hosts of the [lab](lab.md)
were made anew, three nodes and two balancers with a virtual address.

{surroundings}

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
class Series:
    """What was measured with one of the settings, in one go, as far as that has come.

    Attributes:
        settings: their name.
        machine: where it was measured.
        began: when.
        times: how often each fault was measured.
        versions: of what the hosts ran.
        told: the variables in force.
        felt: what was measured.
        broken: why it could not be measured to the end, if it could not.
    """

    settings: str
    machine: Machine
    began: datetime
    times: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    told: dict[str, object] = field(default_factory=dict)
    felt: list[Felt] = field(default_factory=list)
    broken: str = ""

    def is_of(self, versions: Mapping[str, str], told: Mapping[str, object]) -> bool:
        """Say whether it was measured with these versions, and these variables in force."""
        return (self.versions, self.told) == (versions, told)


def save(directory: Path, measured: Sequence[Series]) -> None:
    """Keep in a directory what was measured with one of the settings, in the place of what was kept of it before.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(exist_ok=True)
    told = [asdict(series) | {"began": series.began.isoformat(timespec="seconds")} for series in measured]
    (directory / f"{measured[0].settings}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def load(directory: Path, settings: str) -> list[Series]:
    """Return what was measured with these settings and kept in a directory.

    Raises:
        OSError: it cannot be read.
        ValueError: it is nothing that save() wrote.
    """
    file = directory / f"{settings}.json"
    if not file.exists():
        return []
    try:
        return [
            Series(
                **series
                | {
                    "machine": Machine(**series["machine"]),
                    "began": datetime.fromisoformat(series["began"]),
                    "felt": [Felt(**one) for one in series["felt"]],
                }
            )
            for series in json.loads(file.read_text(encoding="utf-8"))
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no result of this benchmark: remove it, and measure again") from error


def section(measured: Sequence[Series], promised: Mapping[str, float], longest: float) -> str:
    """Return the section of docs/benchmarks.md.

    Args:
        measured: in the order of the columns; what was measured with the same settings becomes one column.
        promised: the gates of the profile "lan", in seconds, by the name of the fault.
        longest: seconds that a fault lasts at most.
    """
    felt = [one for series in measured for one in series.felt]
    return TEXT.format(
        surroundings=_surroundings(measured),
        longest=longest,
        khepri=gates.FROZEN,
        silences=_silences(felt, promised),
        lost=_lost(felt),
        complaints=_complaints(measured),
        settings=_settings({series.settings: series.told for series in measured}),
    )


def _surroundings(measured: Sequence[Series]) -> str:
    versions = dict.fromkeys(name for series in measured for name in series.versions)
    return table(
        ("settings", "measured", "on", "cores", "memory", "processor", "kernel", *versions),
        [
            (
                series.settings,
                times(series.times),
                series.began.date().isoformat(),
                str(series.machine.cores),
                f"{series.machine.memory_gib:.0f} GiB",
                series.machine.model,
                series.machine.kernel,
                *(series.versions.get(name, "") for name in versions),
            )
            for series in measured
        ],
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


def _complaints(measured: Sequence[Series]) -> str:
    lines = [
        f"- {one.settings}, {one.fault}: {one.complaint}" for series in measured for one in series.felt if one.complaint
    ]
    lines += [f"- {series.settings}, given up: {series.broken}" for series in measured if series.broken]
    return "What went wrong besides:\n\n" + "\n".join(dict.fromkeys(lines)) + "\n\n" if lines else ""


def _settings(told: Mapping[str, Mapping[str, object]]) -> str:
    # The profile only says where the others come from.
    names = dict.fromkeys(name for settings in told.values() for name in settings if not name.endswith("_profile"))
    return table(
        ("variable", *told),
        [(f"`{name}`", *(str(settings.get(name, "")) for settings in told.values())) for name in names],
    )
