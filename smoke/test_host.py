"""What clients feel of hosts that vanish without a word: frozen, or switched off."""

from __future__ import annotations

import time
from functools import partial

import pytest

from smoke.aftermath import assert_whole
from smoke.deployment import Deployment
from smoke.history import Kind
from smoke.outlive import assert_up, flow, frozen, outlive, promised, survived, switched
from smoke.report import Record
from smoke.stream import RATE, flowing

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]

# Promised for the median, in seconds, with the profile "lan": the longest silence after the loss of ...
HOST_LOST = 4.0
HOST_FROZEN = 4.0
BALANCER_LOST = 1.0
# From the start of the hosts to the first message.
ALL_LOST = 30.0
# Seconds after which what a node knows of a new quorum queue is on its disk: up to 3.5 s by way of Erlang's dets.
# Without it all members take themselves for new ones, and none becomes the leader (rabbitmq-server#15725).
ON_DISK = 5.0


@pytest.mark.full
def test_the_node_of_the_clients_freezes(deployment: Deployment, record: Record) -> None:
    """Its kernel still answers, so that only a check that speaks with the broker notices."""
    outlive(deployment, record, partial(frozen, deployment))


@pytest.mark.full
def test_the_host_of_the_clients_freezes(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(switched, hosts, off="freeze", on="thaw"))


def test_the_host_of_the_clients_loses_its_power(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(switched, hosts, off="kill", on="start"), gate=HOST_LOST)


@pytest.mark.full
def test_the_host_of_a_balancer_loses_its_power(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victim = hosts.holder()
        begin = time.monotonic()
        with switched(hosts, victim, off="kill", on="start"):
            survived(stream, begin, f"messages flow without {victim.name}")
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(hosts, BALANCER_LOST))


@pytest.mark.full
def test_all_balancers_lose_their_power_and_come_back(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        begin = time.monotonic()
        with switched(hosts, *hosts.balancers, off="kill", on="start"):
            for client in ("producer", "consumer"):
                stream.wait_for(Kind.lost, 1, since=begin, client=client, what=f"the {client} notices")
        flow(stream, "messages flow through a balancer again")
        stream.finish()
        record(stream.verdict(since=begin))


@pytest.mark.full
def test_all_nodes_lose_their_power_and_start_in_another_order(hosts: Deployment, record: Record) -> None:
    """The first that was lost is started first, and has to wait for those that know what happened last."""
    with flowing(hosts) as stream:
        stream.wait_for(Kind.delivery, int(ON_DISK * RATE), since=0.0, what="the queue is on every disk")
        begin = time.monotonic()
        with switched(hosts, *hosts.nodes, off="kill", on="start"):
            stream.wait_for(Kind.lost, 2, since=begin, what="the clients notice")
        started = time.monotonic()
        stream.wait_for(Kind.confirm, 1, since=started, what="a message is confirmed again", within=120)
        silent = stream.events(Kind.confirm, since=started)[0].at - started
        flow(stream, "messages flow again")
        assert_up(hosts, *hosts.nodes)
        assert_whole(hosts)
        stream.finish()
        record(stream.verdict(since=begin))
        limit = promised(hosts, ALL_LOST)
        assert limit is None or silent <= limit, f"the first confirm came {silent:.1f} s after the hosts were started"
