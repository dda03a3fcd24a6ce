"""Outlive a fault: what the tests have in common that let a host vanish and have clients do without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from smoke import balancer_stats, journal, management
from smoke.deployment import Balancer, Deployment, Node
from smoke.history import Kind
from smoke.report import Record
from smoke.stream import RATE, Stream, flowing
from smoke.waiting import eventually

# Messages that have to arrive after a fault before it counts as survived: two seconds of the stream.
FLOWING = int(2 * RATE)
# Single runs may take so many times what is promised for the median: one also draws from the clients' backoff, and
# finds the checks of the balancers at their worst moment.
SPREAD = 2

Fault = Callable[[Node], AbstractContextManager[None]]


def outlive(deployment: Deployment, record: Record, fault: Fault, *, gate: float | None = None) -> None:
    """Let the node of the consumer vanish for a while; its clients have to do without, and it has to come back.

    Args:
        deployment: where.
        record: takes the verdict.
        fault: is there within the block that it returns.
        gate: the longest silence, in seconds, that is promised for the median, with the profile "lan".
    """
    with flowing(deployment) as stream:
        victim = of_the_consumer(deployment, stream)
        begin = time.monotonic()
        with fault(victim):
            assert_down(deployment, victim, silent=True)
            survived(stream, begin, f"messages flow without {victim.name}")
        assert_up(deployment, victim)
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(deployment, gate))


def promised(deployment: Deployment, gate: float | None) -> float | None:
    """Return the longest silence, in seconds, that one run may have, where the deployment promises anything."""
    lan = all(node.settings.get("rabbitmq_profile") == "lan" for node in deployment.nodes)
    return gate * SPREAD if gate is not None and lan and deployment.vip else None


@contextmanager
def down(deployment: Deployment, node: Node, how: Callable[[Node], None]) -> Iterator[None]:
    """Stop or kill a node, and see to it after the block that it is back."""
    with journal.fault(f"{how.__name__} {node.name}"):
        try:
            how(node)
            yield
        finally:
            # One that was killed is back by itself: then this only waits until it serves.
            deployment.start(node)


@contextmanager
def frozen(deployment: Deployment, node: Node) -> Iterator[None]:
    """Let a node stand still during the block."""
    with journal.fault(f"{node.name} is frozen"):
        deployment.freeze(node)
        try:
            yield
        finally:
            deployment.thaw(node)


@contextmanager
def switched(deployment: Deployment, *hosts: Node | Balancer, off: str, on: str) -> Iterator[None]:
    """Switch hosts off during the block, one right after the other."""
    with journal.fault(f"{off} {', '.join(host.name for host in hosts)}"):
        switched_off = []
        try:
            for host in hosts:
                deployment.power_host(host, off)
                switched_off.append(host)
            yield
        finally:
            for host in switched_off:
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
    flow(stream, what)


def flow(stream: Stream, what: str, *, client: str = "") -> None:
    """Insist that messages arrive from now on, at one client or anywhere."""
    stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), client=client, what=what, within=90)


def assert_down(deployment: Deployment, node: Node, *, silent: bool = False) -> None:
    """Insist that a fault had an effect: the checks fail, sooner if refused than if unanswered."""
    for balancer in deployment.balancers:
        eventually(
            partial(_is, balancer, node, "DOWN"),
            within=(balancer.detection.hung_max if silent else balancer.detection.refused_max) + 2,
            what=f"{balancer.name} marks {node.name} DOWN",
        )


def assert_up(deployment: Deployment, *nodes: Node) -> None:
    """Insist that every balancer takes nodes back."""
    for balancer in deployment.balancers:
        for node in nodes:
            eventually(partial(_is, balancer, node, "UP"), within=120, what=f"{balancer.name} sees {node.name} UP")


def _is(balancer: Balancer, node: Node, status: str) -> bool:
    return balancer_stats.statuses(balancer)[node.name] == status
