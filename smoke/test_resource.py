"""What clients feel of a node that runs out of something: memory, disk, processor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from smoke import journal, management
from smoke.broken import SLOW
from smoke.deployment import Deployment, Node
from smoke.history import Kind
from smoke.outlive import assert_up, flow, of_the_consumer
from smoke.report import Record
from smoke.stream import flowing
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full]

# For each resource: what rabbitmqctl sets, to what value so that it is exhausted at once, what the management API calls
# the value that it had, and the alarm.
LIMITS = {
    "memory": ("set_vm_memory_high_watermark absolute", 1_000_000, "mem_limit", "mem_alarm"),
    "disk": ("set_disk_free_limit", 10**15, "disk_free_limit", "disk_free_alarm"),
}
# What a slow consumer has left when producers are held up, in messages, and how long a missing confirm is borne, in
# seconds: it takes longer.
BACKLOG, BORNE = 200, 6.0
# Of the time, percent, and how long that lasts, in seconds.
STARVING, STARVED = 10, 15


@pytest.mark.parametrize("resource", LIMITS)
def test_an_alarm_holds_producers_up_and_lets_consumers_go_on(hosts: Deployment, record: Record, resource: str) -> None:
    # Of one that keeps up nobody could say whether it goes on: nothing comes any more.
    with flowing(hosts, clients=SLOW) as stream:
        stream.wait_for(Kind.confirm, 2 * BACKLOG, since=0.0, what=f"half of {2 * BACKLOG} messages wait in the queue")
        begin = time.monotonic()
        with exhausted(hosts, hosts.others(of_the_consumer(hosts, stream))[0], resource):
            stream.wait_for(Kind.blocked, 1, since=begin, client="producer", what="the producer is told")
            blocked = stream.events(Kind.blocked, since=begin, client="producer")[0].at
            stream.wait_for(Kind.delivery, BACKLOG, since=blocked, client="consumer", what="the consumer goes on")
            assert time.monotonic() - blocked > BORNE, "the backlog was gone too soon"
            # What was on its way is still taken.
            assert stream.events(Kind.confirm, since=blocked + 2) == [], "the alarm held nobody up"
        stream.wait_for(Kind.unblocked, 1, since=begin, client="producer", what="the producer is told that it is over")
        flow(stream, "messages flow again")
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin))


def test_a_node_gets_next_to_no_processor(hosts: Deployment, record: Record) -> None:
    """Slow is worse than dead: its checks may pass, and its clients wait."""
    with flowing(hosts) as stream:
        victim = of_the_consumer(hosts, stream)
        begin = time.monotonic()
        with starved(hosts, victim):
            time.sleep(STARVED)
            flow(stream, "messages flow although a node starves")
        assert_up(hosts, victim)
        stream.finish()
        record(stream.verdict(since=begin))


@contextmanager
def exhausted(deployment: Deployment, node: Node, resource: str) -> Iterator[None]:
    """Let a node run out of something during the block, by moving its limit."""
    command, too_much, limit, alarm = LIMITS[resource]
    path = f"nodes/{node.nodename}"
    before = int(management.get(deployment, node, path)[limit])
    with journal.fault(f"{node.name} is out of {resource}"):
        try:
            deployment.run(node, f"rabbitmqctl {command} {too_much}", what=f"no {resource}")
            eventually(
                lambda: management.get(deployment, node, path)[alarm], within=30, what=f"the alarm for {resource}"
            )
            yield
        finally:
            deployment.run(node, f"rabbitmqctl {command} {before}", what=f"enough {resource}")


@contextmanager
def starved(deployment: Deployment, node: Node) -> Iterator[None]:
    """Take most of its processor from a node during the block: it is stopped again and again.

    Not by a quota: that needs a controller which the host, if it is a container, may not have.

    Raises:
        AssertionError: nobody stopped it any more at the end.
    """
    process = int(management.get(deployment, node, f"nodes/{node.nodename}")["os_pid"])
    run, rest = STARVING / 1000, (100 - STARVING) / 1000
    loop = f"while kill -STOP {process}; do sleep {rest}; kill -CONT {process}; sleep {run}; done"
    unit = "smoke-starve.service"
    with journal.fault(f"{node.name} has {STARVING} % of a processor"):
        try:
            deployment.run(node, f"systemd-run --collect --quiet --unit={unit} sh -c '{loop}'", what="starve")
            yield
            state = deployment.run(node, f"systemctl show --value --property ActiveState {unit}")
        finally:
            deployment.run(node, f"systemctl stop {unit}; kill -CONT {process}", what="feed")
    assert "active" in state.split(), f"{node.name} was not held up any more: {state}"
