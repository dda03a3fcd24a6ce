"""A run of site.yml that is killed at the worst moments, and the next one that has to complete it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping

import pytest

from smoke import balancer_stats
from smoke.deployment import PROJECT, Deployment
from smoke.history import Kind
from smoke.processes import Processes
from smoke.report import Record
from smoke.stream import RATE, flowing
from smoke.test_change import changes

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full, pytest.mark.timeout(900)]

# What is done once all nodes are through, and nothing but a mark says to the next run.
SPREAD = "rebalance | Spread the queue leaders"
# A change, and its taking back; and what the runs that bring them were about to do when they are killed, as Ansible
# announces it. Each run goes on where the one before was killed.
CHANGES: tuple[tuple[Mapping[str, object], tuple[str, ...]], ...] = (
    (
        {"rabbitmq_settings": {"channel_max": 1500}},
        ("drain | Move its queue leaders", "stopped | Let"),
    ),
    (
        {},
        ("started | Let", "restart | Let the balancers use it again", SPREAD),
    ),
)
# The longest silence that the clients may have felt, in seconds.
LONGEST = 3.0


def test_a_run_that_is_killed_at_any_point_is_completed_by_the_next_one(deployment: Deployment, record: Record) -> None:
    if not deployment.vip:
        pytest.skip("three runs of site.yml, and five killed ones: done where the nodes have hosts of their own")
    with flowing(deployment) as stream:
        begin = time.monotonic()
        for change, moments in CHANGES:
            before = Processes(deployment)
            for moment in moments:
                killed_at(deployment, change, moment)
            printed = deployment.playbook("site", extra=change)
            assert "changed: " in printed.partition(SPREAD)[2].partition("TASK")[0], "the leaders were not spread"
            assert before.restarted() == {node.name for node in deployment.nodes}, "a node was forgotten"
            for balancer in deployment.balancers:
                assert set(balancer_stats.statuses(balancer).values()) == {"UP"}, "a server was left out of the pool"
        assert changes(deployment.playbook("site")) == set(), "something was left to do"
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow after the change")
        stream.finish()
        # A node that one run left out of the pool, and the last one taken out by the next, are an outage.
        record(stream.verdict(since=begin), gate=LONGEST)


def killed_at(deployment: Deployment, change: Mapping[str, object], moment: str) -> None:
    """Run the part of site.yml that restarts nodes, and kill it with all its workers when it announces a task.

    Raises:
        AssertionError: it ended without announcing it.
    """
    with subprocess.Popen(
        deployment.command("rabbitmq", extra=change),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        # A run that hangs before the moment must not hang the suite.
        watchdog = threading.Timer(300, os.killpg, (run.pid, signal.SIGKILL))
        watchdog.start()
        printed = []
        try:
            for line in run.stdout:
                printed.append(line)
                if line.startswith("TASK") and moment in line:
                    os.killpg(run.pid, signal.SIGKILL)
                    return
        finally:
            watchdog.cancel()
    raise AssertionError(f"the run ended before {moment!r}:\n{''.join(printed[-40:])}")
