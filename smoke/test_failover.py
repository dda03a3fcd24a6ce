"""What an application feels when something fails: a steady confirmed stream, one fault, and what it cost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest

from smoke import balancer_stats, management
from smoke.deployment import PROJECT, Balancer, Deployment, Node
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.stream import RATE, flowing
from smoke.topology import QueueType, Topology
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]

Record = Callable[[Verdict], None]

# Messages that have to arrive after a fault before it counts as survived: two seconds of the stream.
FLOWING = int(2 * RATE)


def test_the_node_of_the_clients_is_stopped(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        victim = eventually(
            partial(management.consumer_node, deployment, stream.topology), within=30, what="the consumer is seen"
        )
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        assert stream.events(Kind.lost, since=begin, client="consumer"), "the consumer did not notice"
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow without the node")
        deployment.start(victim)
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow with the node back")
        stream.finish()
        record(stream.verdict(since=begin))


def test_the_leader_of_the_queue_is_stopped_while_the_clients_are_elsewhere(
    deployment: Deployment, record: Record
) -> None:
    with flowing(deployment) as stream:
        victim = management.leader(deployment, stream.topology)
        stream.place_away_from(victim)
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        moved = leader_from(deployment, deployment.others(victim)[0], stream.topology)
        assert moved != victim.nodename, "the queue has no other leader"
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow without the leader")
        deployment.start(victim)
        stream.finish()

        lost = stream.events(Kind.lost, since=begin)
        assert lost == [], "a client on a surviving node lost its connection"
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_the_home_of_a_classic_queue_is_stopped(deployment: Deployment, record: Record) -> None:
    """The queue is not replicated: its durable messages return with the node, and so does the stream."""
    with flowing(deployment, QueueType.CLASSIC) as stream:
        victim = management.leader(deployment, stream.topology)
        stream.place_away_from(victim)
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        stream.wait_for(Kind.cancelled, 1, since=begin, what="the broker cancels the consumer")
        deployment.start(victim)
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow with the node back")
        stream.finish()
        record(stream.verdict(since=begin))


def test_the_leader_of_the_queue_is_killed(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        victim = management.leader(deployment, stream.topology)
        started = management.uptime(deployment, victim)
        begin = time.monotonic()
        deployment.kill(victim)
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow without the leader")
        deployment.start(victim)
        assert management.uptime(deployment, victim) < started + (time.monotonic() - begin) * 1000, (
            "the node did not restart"
        )
        stream.finish()
        record(stream.verdict(since=begin))


def test_all_nodes_are_stopped_and_started_again(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        begin = time.monotonic()
        deployment.stop(*deployment.nodes)
        for node in deployment.nodes:
            assert_down(deployment, node)
        deployment.start(*deployment.nodes)
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow with all nodes back")
        stream.finish()
        record(stream.verdict(since=begin))


def test_the_standard_consumer_dies_from_the_same_stop(deployment: Deployment) -> None:
    """The control: if this one lives, the faults above were none."""
    topology = Topology("smoke-standard", "smoke-standard", "smoke-standard")
    endpoint = deployment.endpoint
    with subprocess.Popen(
        [sys.executable, "smoke/standard_consumer.py", endpoint.host, str(endpoint.port), "--user", deployment.user]
        + [f"--{option}={topology.queue}" for option in ("exchange", "queue", "routing-key")],
        cwd=PROJECT,
        env={"RABBITMQ_PASSWORD": deployment.password},
        stderr=subprocess.PIPE,
        text=True,
    ) as consumer:
        try:
            victim = eventually(
                partial(management.consumer_node, deployment, topology), within=30, what="the consumer is seen"
            )
            deployment.stop(victim)
            _, complaint = consumer.communicate(timeout=30)
        finally:
            consumer.kill()
            deployment.start(*deployment.nodes)
            for kind in ("queues", "exchanges"):
                management.delete(deployment, deployment.nodes[0], f"{kind}/%2F/{topology.queue}")

    assert consumer.returncode == 1
    assert "CONNECTION_FORCED" in complaint


def assert_down(deployment: Deployment, node: Node, *, silent: bool = False) -> None:
    """Insist that a fault had an effect: the checks fail, sooner if refused than if unanswered."""
    for balancer in deployment.balancers:
        eventually(
            partial(_is_down, balancer, node),
            within=(balancer.detection.hung_max if silent else balancer.detection.refused_max) + 2,
            what=f"{balancer.name} marks {node.name} DOWN",
        )


def _is_down(balancer: Balancer, node: Node) -> bool:
    return balancer_stats.statuses(balancer)[node.name] == "DOWN"


def leader_from(deployment: Deployment, node: Node, topology: Topology) -> str:
    """Return the leader of a queue as one node sees it."""
    found = eventually(
        lambda: management.queue(deployment, node, topology).get("leader"), within=30, what="the queue has a leader"
    )
    return str(found)
