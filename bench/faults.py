"""The faults that are compared: those of the smoke suite, each as long as it takes its clients to do without.

The tests of the suite are not run themselves: they insist on what our own settings promise, such as that a balancer
sees a node DOWN that is cut off from its peers, and end there if it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from smoke import journal, management
from smoke.deployment import Deployment, Node
from smoke.network import cut
from smoke.stream import Stream
from smoke.waiting import eventually

# Finds the victim while the clients work; what it returns breaks it, and repairs it at the end of a block.
Fault = Callable[[Deployment, Stream], AbstractContextManager[None]]


def _stopped(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return _down(deployment, _of_the_consumer(deployment, stream), deployment.stop)


def _killed(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return _down(deployment, management.leader(deployment, stream.topology), deployment.kill)


def _powerless(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return _off(deployment, _of_the_consumer(deployment, stream))


def _silent(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return cut(deployment, _of_the_consumer(deployment, stream))


def _alone(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    victim = _of_the_consumer(deployment, stream)
    return cut(deployment, victim, peers=deployment.others(victim))


def _balancer(deployment: Deployment, _: Stream) -> AbstractContextManager[None]:
    return _without_its_balancer(deployment)


# By the names of the document, and in its order.
FAULTS: dict[str, Fault] = {
    "node of the clients stopped": _stopped,
    "leader of the queue killed": _killed,
    "host of the clients without power": _powerless,
    "node of the clients cut off from everyone, silently": _silent,
    "node of the clients cut off from its peers only": _alone,
    "HAProxy killed that holds the virtual address": _balancer,
}


def _of_the_consumer(deployment: Deployment, stream: Stream) -> Node:
    return eventually(
        partial(management.consumer_node, deployment, stream.topology), within=30, what="the consumer is seen"
    )


@contextmanager
def _down(deployment: Deployment, node: Node, how: Callable[[Node], None]) -> Iterator[None]:
    with journal.fault(f"{how.__name__} {node.name}"):
        try:
            how(node)
            yield
        finally:
            # One that was killed is back by itself: then this only waits until it serves.
            deployment.start(node)


@contextmanager
def _off(deployment: Deployment, node: Node) -> Iterator[None]:
    with journal.fault(f"{node.name} has no power"):
        try:
            deployment.power_host(node, "kill")
            yield
        finally:
            deployment.power_host(node, "start")


@contextmanager
def _without_its_balancer(deployment: Deployment) -> Iterator[None]:
    holder = deployment.holder()
    with journal.fault(f"HAProxy of {holder.name} is killed"):
        try:
            # Masked, or systemd has it back before anybody has noticed.
            deployment.run(holder, "systemctl mask --runtime haproxy && systemctl kill --signal=SIGKILL haproxy")
            yield
        finally:
            deployment.run(holder, "systemctl unmask --runtime haproxy && systemctl start haproxy")
