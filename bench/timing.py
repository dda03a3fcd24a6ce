"""What one run of a playbook took and did, from the events that Ansible writes while it runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePath
from typing import Any


class Phase(StrEnum):
    """A part of playbooks/site.yml, in the order in which they come."""

    start = "start of Ansible"
    preflight = "preflight"
    install = "install"
    compare = "compare"
    form = "form"
    roll = "roll"
    balance = "balance"
    objects = "objects"
    verify = "verify"


# The phase of a play: that of its file, or, where one file has several, that of its name.
PHASE_OF_FILE = {
    "preflight.yml": Phase.preflight,
    "install.yml": Phase.install,
    "machines.yml": Phase.install,
    "firewall.yml": Phase.install,
    "rebalance.yml": Phase.roll,
    "haproxy.yml": Phase.balance,
    "objects.yml": Phase.objects,
    "verify.yml": Phase.verify,
}
# The play that takes one node at a time, and is not begun at all without one.
ONE_AT_A_TIME = "Bring the nodes that differ up to date, one at a time"
PHASE_OF_PLAY = {
    ("rabbitmq.yml", "Compare what runs with what should run"): Phase.compare,
    ("rabbitmq.yml", "Start the nodes that do not run, together"): Phase.form,
    ("rabbitmq.yml", "Give replicas to the nodes that an interrupted run has left without"): Phase.form,
    ("rabbitmq.yml", "Let nodes serve again that an interrupted run has drained"): Phase.form,
    ("rabbitmq.yml", "Put servers back into the pool that an interrupted run has left out"): Phase.form,
    ("rabbitmq.yml", "Let all nodes of a cluster go by the same net_ticktime"): Phase.roll,
    ("rabbitmq.yml", "Let balancers ask whether a node sees its peers"): Phase.balance,
    ("rabbitmq.yml", ONE_AT_A_TIME): Phase.roll,
}

# What Ansible does by itself, on the control machine.
CONTROL_SIDE = frozenset(
    {
        "add_host",
        "assert",
        "debug",
        "fail",
        "group_by",
        "include_role",
        "include_tasks",
        "include_vars",
        "set_fact",
        "set_stats",
        "validate_argument_spec",
    }
)


class EventError(Exception):
    """The events are not those of a whole run of playbooks/site.yml."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run did.

    Attributes:
        tasks: which Ansible came to, whether or not a host had to do something.
        executions: of a task by a host; what was skipped is not counted.
        changed: those of them that changed something.
        modules: executions that started a Python module on a host, an element of a loop being one.
        shells: executions that started a shell there, and no Python.
        questions: executions that asked the management API, with Python on the host.
    """

    tasks: int
    executions: int
    changed: int
    modules: int
    shells: int
    questions: int


@dataclass(frozen=True, slots=True)
class Timing:
    """One run.

    Attributes:
        phases: seconds; together they are the whole run. A phase that had nothing to do has some hundredths.
        nodes_rolled: nodes that were brought up to date one at a time.
        counts: what it did.
    """

    phases: dict[Phase, float]
    nodes_rolled: int
    counts: Counts

    @property
    def total(self) -> float:
        """Seconds for everything."""
        return sum(self.phases.values())


def events(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the events that the callback ansible.posix.jsonl printed; other lines are none."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def phase_of(path: str, name: str) -> Phase:
    """Return the phase of a play.

    Raises:
        EventError: nobody has said to which one it belongs.
    """
    file = PurePath(path.rpartition(":")[0]).name
    phase = PHASE_OF_PLAY.get((file, name)) or PHASE_OF_FILE.get(file)
    if phase is None:
        raise EventError(f'the play "{name}" of {file} belongs to no phase; say in bench/timing.py to which')
    return phase


def timing(run: Iterable[dict[str, Any]], started: float, ended: float) -> Timing:
    """Return what a run took and did; started and ended are Unix times of its process.

    Raises:
        EventError: the events are not those of a run of playbooks/site.yml.
    """
    run = list(run)
    marks = [(Phase.start, started)]
    for event in run:
        if event["_event"] == "v2_playbook_on_play_start":
            marks.append((phase_of(event["play"]["path"], event["play"]["name"]), _unix(event["_timestamp"])))
    if len(marks) == 1:
        raise EventError("the run has no play")
    phases = dict.fromkeys(Phase, 0.0)
    for (phase, begin), (_, end) in zip(marks, [*marks[1:], (None, ended)], strict=True):
        phases[phase] += end - begin
    return Timing(phases=phases, nodes_rolled=_nodes_rolled(run), counts=_counts(run))


def outputs(run: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return what a task printed on each host."""
    return {
        host: result["stdout"]
        for event in run
        if event["_event"] == "v2_runner_on_ok"
        for host, result in event["hosts"].items()
    }


def failures(run: Iterable[dict[str, Any]]) -> list[str]:
    """Return what failed in a run, one line each: host, task and message."""
    return [
        f"{host}: {event['task']['name']}: {' '.join(str(result.get('msg') or 'failed').split())}"
        for event in run
        if event["_event"] in ("v2_runner_on_failed", "v2_runner_on_unreachable")
        for host, result in event["hosts"].items()
    ]


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _nodes_rolled(run: list[dict[str, Any]]) -> int:
    """Count the batches of the play that takes one node at a time."""
    rolled, rolling = 0, False
    for event in run:
        if event["_event"] == "v2_playbook_on_play_start":
            rolling = event["play"]["name"] == ONE_AT_A_TIME
        elif rolling and event["_event"] == "v2_playbook_on_task_start":
            rolled, rolling = rolled + 1, False
    return rolled


def _counts(run: list[dict[str, Any]]) -> Counts:
    tasks = sum(event["_event"] == "v2_playbook_on_task_start" for event in run)
    done = [
        result
        for event in run
        if event["_event"] in ("v2_runner_on_ok", "v2_runner_on_failed")
        for result in event["hosts"].values()
    ]
    modules = shells = questions = 0
    for result in done:
        action = result["action"].rpartition(".")[2]
        if action in CONTROL_SIDE:
            continue
        times = sum(not item.get("skipped") for item in result.get("results") or [{}])
        if action == "raw":
            shells += times
        elif action == "rabbitmq_ask":
            questions += times
        else:
            modules += times
    changed = sum(bool(result.get("changed")) for result in done)
    return Counts(tasks, len(done), changed, modules, shells, questions)
