"""Measures how long provisioning takes.

Every run makes five hosts anew and measures, on these, the first deployment, one that changes nothing, and one that
restarts the three nodes one after the other for a changed configuration.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from bench.erlang import ErlangTools
from bench.lab import BenchmarkError, Lab
from bench.report import Measured, Scenario, document, this_machine
from bench.timing import timing

# Below the limit of the default, so that it is another value in every run.
CHANNEL_MAX = 1000


def measure(runs: int) -> Iterator[str]:
    """Measure everything so many times; gives the section of the document.

    Raises:
        BenchmarkError: something else happened than was to be measured.
        EventError: so it seems from the events of Ansible.
    """
    lab = Lab()
    measured = [one for number in range(1, runs + 1) for one in _run(lab, number, runs)]
    yield document(measured, this_machine(), lab.versions(), runs, datetime.now(UTC))


def _run(lab: Lab, number: int, runs: int) -> Iterator[Measured]:
    """Measure everything once, on hosts that are made for it."""
    lab.make()
    containers = lab.containers()
    for scenario in Scenario:
        settings = {"rabbitmq_settings": {"channel_max": CHANNEL_MAX + number}} if scenario == Scenario.roll else {}
        one = _measure(lab, scenario, containers, f"--extra-vars={json.dumps(settings)}")
        print(f"run {number} of {runs}: {scenario}: {one.timing.total:.1f} s", flush=True)
        yield one


def _measure(lab: Lab, scenario: Scenario, containers: Sequence[str], *options: str) -> Measured:
    started = time.time()
    with ErlangTools(containers) as tools:
        seen = lab.deploy(scenario, *options)
    ended = time.time()
    one = Measured(scenario, timing(seen, started, ended), tools.started)
    # A figure for something else than what it is said to be is worse than none.
    if scenario == Scenario.nothing and one.timing.counts.changed:
        raise BenchmarkError(f"the run that should change nothing changed {one.timing.counts.changed} things")
    if scenario == Scenario.roll and one.timing.nodes_rolled != 3:
        raise BenchmarkError(
            f"the changed configuration reached {one.timing.nodes_rolled} nodes one at a time, and not 3"
        )
    return one
