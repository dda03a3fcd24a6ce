"""What docs/benchmarks.md says of provisioning, and the tables of all its parts."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from bench.erlang import PAUSE
from bench.timing import Phase, Timing


class Scenario(StrEnum):
    """What is measured, in this order on the same hosts."""

    first = "first deployment"
    nothing = "nothing to change"
    roll = "rolling restart"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: what Ansible says of it, and the Erlang machines that its command line tools took."""

    scenario: Scenario
    timing: Timing
    tools: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Where everything ran: the hosts and Ansible share it."""

    model: str
    cores: int
    memory_gib: float
    kernel: str

    def table(self) -> str:
        """Return it as a table."""
        return table(
            ("cores", "memory", "processor", "kernel"),
            [(str(self.cores), f"{self.memory_gib:.0f} GiB", self.model, self.kernel)],
        )


COUNTS: dict[str, Callable[[Measured], int]] = {
    "tasks that Ansible came to": lambda one: one.timing.counts.tasks,
    "executions of a task by a host": lambda one: one.timing.counts.executions,
    "of these: a Python module on the host": lambda one: one.timing.counts.modules,
    "of these: a shell command on the host, without Python": lambda one: one.timing.counts.shells,
    "of these: a question to the management API": lambda one: one.timing.counts.questions,
    "Erlang machines started for a command line tool": lambda one: one.tools,
}

TEXT = """# Benchmarks

Made by `make bench` on {date}. Everything was measured {times}; each time five hosts of the [lab](lab.md), three nodes
and two balancers, were made anew, which is not counted, and `playbooks/site.yml` was run three times on them: on the
bare Debian, again with nothing to change, and with another value in `rabbitmq_settings`, for which every node is
restarted in its turn.

{machine}

Hosts and Ansible share this machine.

{versions}

## Seconds

{seconds}

Median, and least to most where that differs. The phases are the plays of `playbooks/site.yml`; `start of Ansible` is
everything before the first of them. `install` has the packages, fetched from a mirror, and the firewall. `form` starts
nodes that do not run, together; `roll` brings running ones up to date one at a time, and spreads queue leaders again.

## What was started

{counts}

Tasks and executions are counted from Ansible's own events; modules, commands and questions of a loop once for each
element. The Erlang machines are those of `rabbitmqctl` and its siblings, also where a package or a service starts them;
the processes of the hosts are looked at every {pause:.0f} ms.
"""


def document(
    measured: Sequence[Measured], machine: Machine, versions: Mapping[str, str], runs: int, date: datetime
) -> str:
    """Return the part of docs/benchmarks.md, with the title of the whole."""
    seconds: dict[str, Callable[[Measured], float]] = {phase: _seconds_of(phase) for phase in Phase}
    seconds |= {"**everything**": lambda one: one.timing.total}
    return TEXT.format(
        date=date.date().isoformat(),
        times=times(runs),
        machine=machine.table(),
        versions=versions_table(versions),
        pause=PAUSE * 1000,
        seconds=_scenarios("phase", seconds, measured, "{:.1f}"),
        counts=_scenarios("", COUNTS, measured, "{:.0f}"),
    )


def this_machine() -> Machine:
    """Look at the machine that this runs on."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Machine(
        model=model[1] if model else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()}",
    )


def _seconds_of(phase: Phase) -> Callable[[Measured], float]:
    return lambda one: one.timing.phases[phase]


def _scenarios(
    corner: str, rows: Mapping[str, Callable[[Measured], float]], measured: Sequence[Measured], form: str
) -> str:
    """Return a table with a column for each scenario."""
    return table(
        (corner, *Scenario),
        [
            (
                name,
                *(spread([value(one) for one in measured if one.scenario == scenario], form) for scenario in Scenario),
            )
            for name, value in rows.items()
        ],
    )


def spread(values: Sequence[float], form: str) -> str:
    """Return the median, and the least and the most where they look different."""
    least, median, most = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return median if least == most else f"{median} ({least} to {most})"


def versions_table(versions: Mapping[str, str]) -> str:
    """Return a table of what ran, by its name."""
    return table(tuple(versions), [tuple(versions.values())])


def times(runs: int) -> str:
    """Return how often something was done, in a word or two."""
    return "once" if runs == 1 else f"{runs} times"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
