"""What clients feel of hosts that vanish without a word: frozen, or switched off."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import partial

import pytest

from smoke import management
from smoke.aftermath import assert_whole
from smoke.deployment import Deployment, Node
from smoke.gates import ALL_LOST, BALANCER_LOST, FROZEN, FROZEN_MNESIA, HOST_LOST, promised
from smoke.history import Kind
from smoke.outlive import assert_up, flow, frozen, on_disk, outlive, survived, switched, until_given_up
from smoke.report import Record
from smoke.stream import flowing

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]


@pytest.mark.full
def test_the_node_of_the_clients_freezes(deployment: Deployment, record: Record) -> None:
    """Its kernel still answers, so that only a check that speaks with the broker notices."""

    def fault(victim: Node) -> AbstractContextManager[None]:
        return until_given_up(deployment, frozen(deployment, victim))

    outlive(deployment, record, fault, gate=frozen_gate(deployment))


@pytest.mark.full
def test_the_host_of_the_clients_freezes(hosts: Deployment, record: Record) -> None:
    def fault(victim: Node) -> AbstractContextManager[None]:
        return until_given_up(hosts, switched(hosts, victim, off="freeze", on="thaw"))

    outlive(hosts, record, fault, gate=FROZEN)


def test_the_host_of_the_clients_loses_its_power(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(switched, hosts, off="kill", on="start"), gate=HOST_LOST)


@pytest.mark.full
def test_the_host_of_a_balancer_loses_its_power(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victim = hosts.holder()
        begin = time.monotonic()
        with switched(hosts, victim, off="kill", on="start"):
            survived(stream, begin, f"messages flow without {victim.name}")
        flow(stream, f"messages flow with {victim.name} back")
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
        on_disk(stream)
        begin = time.monotonic()
        with switched(hosts, *hosts.nodes, off="kill", on="start"):
            for client in ("producer", "consumer"):
                stream.wait_for(Kind.lost, 1, since=begin, client=client, what=f"the {client} notices")
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


def frozen_gate(deployment: Deployment) -> float:
    """Return what is promised where a node stands still: it depends on what keeps the metadata of the cluster."""
    return FROZEN if management.enabled(deployment, deployment.nodes[0], "khepri_db") else FROZEN_MNESIA
