"""What clients feel of a network that breaks: between a node and everyone, between nodes, for good or for a moment."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest

from smoke import management
from smoke.aftermath import assert_healed, assert_whole
from smoke.deployment import Deployment, Node
from smoke.gates import CUT_OFF
from smoke.history import Kind
from smoke.network import DROP, REJECT, blink, cut
from smoke.outlive import assert_up, flow, of_the_consumer, outlive
from smoke.partition import recovered
from smoke.report import Record
from smoke.stream import flowing
from smoke.test_failover import leader_from
from smoke.waiting import eventually
from smoke.watcher import SILENT

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]

# How long a network with three sides is watched, in seconds: nobody may confirm anything meanwhile.
WATCHED = 5.0


@pytest.mark.full
@pytest.mark.parametrize("verdict", [DROP, REJECT], ids=["silently", "with resets"])
def test_the_node_of_the_clients_is_cut_off_from_everyone(hosts: Deployment, record: Record, verdict: str) -> None:
    outlive(hosts, record, partial(cut, hosts, verdict=verdict), gate=CUT_OFF)


@pytest.mark.full
def test_the_node_of_the_clients_hears_nothing_but_still_speaks(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(cut, hosts, outgoing=False), gate=CUT_OFF)


def test_the_node_of_the_clients_is_cut_off_from_its_peers_only(hosts: Deployment, record: Record) -> None:
    """The minority hole: it still answers clients and balancers, and confirms nothing."""

    def fault(victim: Node) -> AbstractContextManager[None]:
        return cut(hosts, victim, peers=hosts.others(victim))

    outlive(hosts, record, fault, gate=CUT_OFF)


@pytest.mark.full
def test_two_nodes_see_each_other_only_through_the_third(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victim = of_the_consumer(hosts, stream)
        other = hosts.others(victim, management.leader(hosts, stream.topology))[0]
        begin = time.monotonic()
        with cut(hosts, victim, peers=[other]):
            assert_apart(hosts, victim, other)
            flow(stream, "messages flow through two of three")
        assert_up(hosts, *hosts.nodes)
        recovered(hosts, assert_whole, assert_healed)
        stream.finish()
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_the_node_of_the_consumer_sees_all_but_the_leader_of_its_queue(hosts: Deployment, record: Record) -> None:
    """Its node has a majority, and from 4.3 on nobody tells the consumer: it finds out because it asks its queue."""
    with flowing(hosts) as stream:
        leader = management.leader(hosts, stream.topology)
        stream.place_away_from(leader)
        flow(stream, "messages flow to another node than the leader", client="consumer")
        victim = of_the_consumer(hosts, stream)
        begin = time.monotonic()
        with cut(hosts, victim, peers=[leader]):
            assert_apart(hosts, victim, leader)
            flow(stream, "messages flow through the leader, or the one that follows it")
            # Before 4.3 the leader may be the one that all others leave: then the consumer keeps its connection.
            moved = (
                stream.events(Kind.lost, since=begin) or leader_from(hosts, victim, stream.topology) != leader.nodename
            )
            assert moved, "the fault had no effect: neither a client nor the leader has moved"
        assert_up(hosts, *hosts.nodes)
        recovered(hosts, assert_whole, assert_healed)
        flow(stream, "messages flow again")
        stream.finish()
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_no_node_sees_another_one(hosts: Deployment, record: Record) -> None:
    """No side is a majority: nothing is confirmed, and nothing is forgotten."""
    first, second, third = hosts.nodes
    with flowing(hosts) as stream:
        begin = time.monotonic()
        with ExitStack() as cuts:
            cuts.enter_context(cut(hosts, first, peers=[second, third]))
            cuts.enter_context(cut(hosts, second, peers=[third]))
            apart = time.monotonic()
            stream.wait_for(Kind.lost, 1, since=begin, what="a client notices")
            # Time is what is tested: each of them could take itself for the rest of the cluster.
            time.sleep(WATCHED)
            # What was on its way when the last pair was cut may still be answered.
            assert stream.events(Kind.confirm, since=apart + 1) == [], "a node alone confirmed messages"
        assert_up(hosts, *hosts.nodes)
        recovered(hosts, assert_whole, assert_healed)
        flow(stream, "messages flow again")
        stream.finish()
        record(stream.verdict(since=begin))


@pytest.mark.full
@pytest.mark.parametrize("milliseconds", [50, 200, 500], ids="{} ms".format)
def test_the_network_of_a_node_is_gone_for_a_moment(hosts: Deployment, record: Record, milliseconds: int) -> None:
    """Nobody may make a failure of that: no session is cut, no server is DOWN."""
    with flowing(hosts) as stream:
        victim = of_the_consumer(hosts, stream)
        begin = time.monotonic()
        blink(hosts, victim, milliseconds, times=5)
        flow(stream, "messages flow after the blips")
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        seen = [event for event in stream.events(Kind.server, since=begin) if event.where == victim.name]
        assert {event.detail for event in seen} <= {"UP", SILENT}, "a balancer took the node out"
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_the_network_of_a_node_loses_packets(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victim = of_the_consumer(hosts, stream)
        begin = time.monotonic()
        with cut(hosts, victim, share=10):
            # Several times over, since chance is what is tested.
            for _ in range(5):
                flow(stream, "messages flow all the same")
        assert_up(hosts, victim)
        stream.finish()
        record(stream.verdict(since=begin))


def assert_apart(deployment: Deployment, node: Node, other: Node) -> None:
    """Insist that a node does not count another one as running any more."""
    eventually(
        lambda: not management.running(deployment, node)[other.nodename],
        within=90,
        what=f"{node.name} gives {other.name} up",
    )
