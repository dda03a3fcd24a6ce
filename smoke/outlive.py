"""Outlive a fault: what the tests have in common that let a host vanish and have clients do without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from smoke import balancer_stats, journal, management
from smoke.aftermath import assert_avoided, assert_healed
from smoke.deployment import Balancer, Deployment, Node
from smoke.gates import promised
from smoke.history import Kind
from smoke.partition import recovered
from smoke.report import Record
from smoke.stream import RATE, Stream, flowing
from smoke.waiting import eventually

# Seconds after which what a node knows of a new quorum queue is on its disk: up to 3.5 s by way of Erlang's dets.
# Without it all members take themselves for new ones, and none becomes the leader (rabbitmq-server#15725).
ON_DISK = 5.0
# How long something stands still at least, in seconds. It comes back to peers of which each has given it up: one that
# is back just as they do so may leave a partition that Mnesia does not end (docs/failover.md).
STANDING_STILL = 20.0
# Messages that have to arrive after a fault before it counts as survived: two seconds of the stream.
FLOWING = int(2 * RATE)

Fault = Callable[[Node], AbstractContextManager[None]]


def outlive(deployment: Deployment, record: Record, fault: Fault, *, gate: float | None = None) -> None:
    """Let the node of the consumer vanish for a while; its clients have to do without, and it has to come back.

    Args:
        deployment: where.
        record: takes the verdict.
        fault: is there within the block that it returns.
        gate: the longest silence, in seconds (smoke/gates.py).
    """
    with flowing(deployment) as stream:
        victim = of_the_consumer(deployment, stream)
        elsewhere = stream.elsewhere(victim)
        begin = time.monotonic()
        with fault(victim):
            assert_down(deployment, victim, silent=True)
            assert_avoided(deployment, victim)
            survived(stream, begin, f"messages flow without {victim.name}")
            # With "default" a producer gives up what waits for a silent leader. And the end of a fault is another
            # matter: before 4.3 autoheal restarts nodes.
            if promised(deployment, gate):
                stream.assert_undisturbed(*elsewhere, since=begin)
        assert_up(deployment, victim)
        flow(stream, f"messages flow with {victim.name} back")
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(deployment, gate))
    recovered(deployment, assert_healed)


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
def until_given_up(deployment: Deployment, fault: AbstractContextManager[None]) -> Iterator[None]:
    """Let a fault last until every peer has given the node up: net_ticktime and a quarter, and some more."""
    ticktimes = [float(str(node.settings["rabbitmq_net_ticktime"])) for node in deployment.nodes]
    end = time.monotonic() + max(STANDING_STILL, 1.5 * max(ticktimes))
    with fault:
        yield
        threading.Event().wait(max(0.0, end - time.monotonic()))


@contextmanager
def switched(deployment: Deployment, *hosts: Node | Balancer, off: str, on: str) -> Iterator[None]:
    """Switch hosts off during the block, one right after the other."""
    with journal.fault(f"{off} {', '.join(host.name for host in hosts)}"):
        concerned: list[Node | Balancer] = []
        try:
            for host in hosts:
                # Before, since a command that fails may have done its work.
                concerned.append(host)
                deployment.power_host(host, off)
            yield
        finally:
            # Each whatever the others raise, and the one first that has missed the most.
            with ExitStack() as back:
                for host in reversed(concerned):
                    back.callback(deployment.power_host, host, on)


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


def on_disk(stream: Stream) -> None:
    """Wait until the queue of the stream is old enough that every node may lose its power."""
    stream.wait_for(Kind.delivery, int(ON_DISK * RATE), since=0.0, what="the queue is on every disk")


def flow(stream: Stream, what: str, *, client: str = "") -> None:
    """Insist that messages arrive from now on, at one client or anywhere."""
    stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), client=client, what=what, within=90)


def leaves(stream: Stream, *, since: float) -> None:
    """Insist that the consumer gives up a classic queue whose node is gone.

    It is told, as a rule. Seen with 4.0.5: where it had asked its queue 10 ms before the node was killed it was not,
    and found out by itself. Probably its channel waits for the queue then.
    """
    stream.wait_for(Kind.lost, 1, since=since, client="consumer", what="the consumer leaves a queue without its node")


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
