"""What clients feel of hosts that vanish without a word: frozen, switched off, cut off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from smoke import balancer_stats, journal, management
from smoke.deployment import Balancer, Deployment, Node
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.network import DROP, REJECT, cut
from smoke.stream import RATE, Stream, flowing
from smoke.test_failover import assert_down
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]

Record = Callable[[Verdict], None]
FLOWING = int(2 * RATE)


@pytest.fixture
def hosts(deployment: Deployment) -> Deployment:
    """The deployment, if its hosts can be switched off and cut off."""
    if not all(deployment.power.values()):
        pytest.skip("needs hosts that the inventory can switch off and on (smoke_power)")
    return deployment


@pytest.mark.full
def test_the_node_of_the_clients_freezes(deployment: Deployment, record: Record) -> None:
    """Its kernel still answers, so that only a check that speaks with the broker notices."""
    outlive(deployment, record, partial(frozen, deployment))


@pytest.mark.full
def test_the_host_of_the_clients_freezes(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(switched, hosts, off="freeze", on="thaw"))


def test_the_host_of_the_clients_loses_its_power(hosts: Deployment, record: Record) -> None:
    outlive(hosts, record, partial(switched, hosts, off="kill", on="start"))


@pytest.mark.full
@pytest.mark.parametrize("verdict", [DROP, REJECT], ids=["silently", "with resets"])
def test_the_node_of_the_clients_is_cut_off_from_everyone(hosts: Deployment, record: Record, verdict: str) -> None:
    outlive(hosts, record, partial(cut, hosts, verdict=verdict))


def test_the_node_of_the_clients_is_cut_off_from_its_peers_only(hosts: Deployment, record: Record) -> None:
    """The minority hole: it still answers clients and balancers, and confirms nothing."""
    outlive(hosts, record, lambda victim: cut(hosts, victim, peers=hosts.others(victim)))


@pytest.mark.full
def test_the_host_of_a_balancer_loses_its_power(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victim = hosts.holder()
        begin = time.monotonic()
        with switched(hosts, victim, "kill", "start"):
            survived(stream, begin, f"messages flow without {victim.name}")
        stream.finish()
        record(stream.verdict(since=begin))


def outlive(deployment: Deployment, record: Record, fault: Callable[[Node], AbstractContextManager[None]]) -> None:
    """Let the node of the consumer vanish for a while; its clients have to do without, and it has to come back."""
    with flowing(deployment) as stream:
        victim = of_the_consumer(deployment, stream)
        begin = time.monotonic()
        with fault(victim):
            assert_down(deployment, victim, silent=True)
            survived(stream, begin, f"messages flow without {victim.name}")
        assert_up(deployment, victim)
        stream.finish()
        record(stream.verdict(since=begin))


@contextmanager
def frozen(deployment: Deployment, node: Node) -> Iterator[None]:
    """Let a node stand still during the block."""
    deployment.freeze(node)
    try:
        yield
    finally:
        deployment.thaw(node)


@contextmanager
def switched(deployment: Deployment, host: Node | Balancer, off: str, on: str) -> Iterator[None]:
    """Switch a host off during the block."""
    with journal.fault(f"{off} the host {host.name}"):
        deployment.power_host(host, off)
        try:
            yield
        finally:
            deployment.power_host(host, on)


def of_the_consumer(deployment: Deployment, stream: Stream) -> Node:
    """Return the node to which the consumer is connected."""
    return eventually(
        partial(management.consumer_node, deployment, stream.topology), within=30, what="the consumer is seen"
    )


def survived(stream: Stream, begin: float, what: str) -> None:
    """Insist that a client noticed, and that messages flow again while the fault lasts.

    Before 4.3 a client that comes back cannot declare anything until the peers have given the silent node up, which
    with the profile "default" takes up to 75 s (net_ticktime and a quarter of it).
    """
    stream.wait_for(Kind.lost, 1, since=begin, what="a client notices the fault")
    stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what=what, within=90)


def assert_up(deployment: Deployment, node: Node) -> None:
    """Insist that every balancer takes a node back."""
    for balancer in deployment.balancers:
        eventually(partial(is_up, balancer, node), within=120, what=f"{balancer.name} sees {node.name} UP")


def is_up(balancer: Balancer, node: Node) -> bool:
    """Say whether a balancer sees a node UP."""
    return balancer_stats.statuses(balancer)[node.name] == "UP"
