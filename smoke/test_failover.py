"""What an application feels when something fails: a steady confirmed stream, one fault, and what it cost."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

import pytest

from smoke import management
from smoke.aftermath import assert_avoided
from smoke.deployment import PROJECT, Deployment, Node
from smoke.gates import KILLED, KILLED_ELSEWHERE, STOPPED, promised
from smoke.history import Kind
from smoke.messages import Identity
from smoke.outlive import assert_down, assert_up, flow, leaves, of_the_consumer
from smoke.processes import Processes
from smoke.report import Record
from smoke.stream import Stream, flowing
from smoke.terms import Terms
from smoke.topology import QueueType, Topology
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]

# How long what is left of the cluster is watched, in seconds: it may confirm nothing meanwhile.
WATCHED = 5.0
# Of a classic queue that is stopped, in seconds.
LAST_MOMENT = 0.1


def test_the_node_of_the_clients_is_stopped(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        victim = of_the_consumer(deployment, stream)
        elsewhere = stream.elsewhere(victim)
        terms = Terms(deployment, stream.topology, deployment.others(victim)[0])
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        stream.assert_noticed("consumer", since=begin)
        flow(stream, "messages flow without the node")
        deployment.start(victim)
        flow(stream, "messages flow with the node back")
        stream.finish()
        stream.assert_undisturbed(*elsewhere, since=begin)
        record(stream.verdict(since=begin), gate=promised(deployment, STOPPED, ties=terms.ties()))


def test_the_leader_of_the_queue_is_stopped_while_the_clients_are_elsewhere(
    deployment: Deployment, record: Record
) -> None:
    with flowing(deployment) as stream:
        victim = management.leader(deployment, stream.topology)
        stream.place_away_from(victim)
        terms = Terms(deployment, stream.topology, deployment.others(victim)[0])
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        # The balancers may give the node up before there is another leader.
        eventually(
            lambda: leader_from(deployment, deployment.others(victim)[0], stream.topology) != victim.nodename,
            within=30,
            what="the queue has another leader",
        )
        assert_avoided(deployment, victim)
        flow(stream, "messages flow without the leader")
        deployment.start(victim)
        flow(stream, "messages flow with the node back")
        stream.finish()

        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin), gate=promised(deployment, STOPPED, ties=terms.ties()))


@pytest.mark.full
def test_a_node_that_was_drained_is_stopped(deployment: Deployment, record: Record) -> None:
    """The balancers give it no new connections, and those it has stay until it stops."""
    with flowing(deployment) as stream:
        victim = of_the_consumer(deployment, stream)
        elsewhere = stream.elsewhere(victim)
        terms = Terms(deployment, stream.topology, deployment.others(victim)[0])
        begin = time.monotonic()
        deployment.balancer_state([victim], "drain")
        assert_avoided(deployment, victim)
        assert stream.events(Kind.lost, since=begin) == [], "draining cut a session"
        deployment.stop(victim)
        stream.assert_noticed("consumer", since=begin)
        flow(stream, "messages flow without the node")
        deployment.start(victim)
        deployment.balancer_state([victim], "ready")
        assert_up(deployment, victim)
        stream.finish()
        stream.assert_undisturbed(*elsewhere, since=begin)
        record(stream.verdict(since=begin), gate=promised(deployment, STOPPED, ties=terms.ties()))


@pytest.mark.full
def test_the_home_of_a_classic_queue_is_stopped(deployment: Deployment, record: Record) -> None:
    """The queue is not replicated: its durable messages return with the node, and so does the stream."""
    with flowing(deployment, QueueType.CLASSIC) as stream:
        victim = management.leader(deployment, stream.topology)
        stream.place_away_from(victim)
        begin = time.monotonic()
        deployment.stop(victim)
        assert_down(deployment, victim)
        leaves(stream, since=begin)
        deployment.start(victim)
        flow(stream, "messages flow with the node back")
        stream.finish()

        # It has no record of what it delivered in its last moment, and delivers it again without the flag. With 4.3.6:
        # a message that was acknowledged 6 ms before the end.
        left = stream.events(Kind.lost, since=begin, client="consumer")[0].at
        before = [event for event in stream.events(Kind.delivery, since=begin) if event.at < left]
        last = {
            Identity(event.producer, event.sequence, event.attempt)
            for event in before
            if event.at > before[-1].at - LAST_MOMENT
        }
        record(stream.verdict(since=begin, excused=last))


def test_the_leader_of_the_queue_is_killed(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        victim = management.leader(deployment, stream.topology)
        begin = time.monotonic()
        killed(deployment, victim, stream)
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(deployment, KILLED))


@pytest.mark.full
def test_a_follower_of_the_queue_is_killed_while_the_clients_are_elsewhere(
    deployment: Deployment, record: Record
) -> None:
    with flowing(deployment) as stream:
        victim = deployment.others(management.leader(deployment, stream.topology))[0]
        stream.place_away_from(victim)
        begin = time.monotonic()
        killed(deployment, victim, stream)
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin), gate=promised(deployment, KILLED_ELSEWHERE))


@pytest.mark.full
def test_a_node_is_killed_again_and_again(deployment: Deployment, record: Record) -> None:
    """Each time just after its service manager has brought it back, so that the balancers see it come and go."""
    with flowing(deployment) as stream:
        victim = management.leader(deployment, stream.topology)
        begin = time.monotonic()
        for _ in range(3):
            killed(deployment, victim, stream)
        assert_up(deployment, victim)
        stream.finish()
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_two_nodes_of_three_are_lost_and_come_back(deployment: Deployment, record: Record) -> None:
    """What is left is no majority: it must confirm nothing, and must not forget what it has confirmed."""
    with flowing(deployment) as stream:
        leader = management.leader(deployment, stream.topology)
        lost = (leader, deployment.others(leader)[0])
        begin = time.monotonic()
        deployment.stop(*lost)
        stopped = time.monotonic()
        stream.wait_for(Kind.lost, 1, since=begin, what="a client notices")
        # Time is what is tested: the one that is left could take itself for the cluster.
        time.sleep(WATCHED)
        # What was on its way when the second one stopped may still be answered.
        assert stream.events(Kind.confirm, since=stopped + 1) == [], "a minority confirmed messages"
        deployment.start(*lost)
        assert_up(deployment, *deployment.nodes)
        flow(stream, "messages flow with a majority back")
        stream.finish()
        record(stream.verdict(since=begin))


def test_all_nodes_are_stopped_and_started_again(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        begin = time.monotonic()
        deployment.stop(*deployment.nodes)
        for node in deployment.nodes:
            assert_down(deployment, node)
        deployment.start(*deployment.nodes)
        flow(stream, "messages flow with all nodes back")
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
            management.remove(deployment, topology)

    assert consumer.returncode == 1
    assert "CONNECTION_FORCED" in complaint


def leader_from(deployment: Deployment, node: Node, topology: Topology) -> str:
    """Return the leader of a queue as one node sees it."""
    found = eventually(
        lambda: management.queue(deployment, node, topology).get("leader"), within=30, what="the queue has a leader"
    )
    return str(found)


def killed(deployment: Deployment, victim: Node, stream: Stream) -> None:
    """Kill a node, wait until its service manager has it back and messages flow; clients elsewhere must not notice."""
    before = Processes(deployment, victim)
    elsewhere = stream.elsewhere(victim)
    begin = time.monotonic()
    deployment.kill(victim)
    flow(stream, f"messages flow without {victim.name}")
    deployment.start(victim)
    assert before.restarted() == {victim.name}, "the node did not restart"
    stream.assert_undisturbed(*elsewhere, since=begin)
