"""The faults that are compared: those of the smoke suite, each as long as it takes its clients to do without.

The tests of the suite are not run themselves: they insist on what our own settings promise, such as that a balancer
sees a node DOWN that is cut off from its peers, and end there if it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from smoke import journal, management
from smoke.deployment import Deployment
from smoke.network import cut
from smoke.outlive import down, of_the_consumer, switched
from smoke.stream import Stream

# Finds the victim while the clients work; what it returns breaks it, and repairs it at the end of a block.
Fault = Callable[[Deployment, Stream], AbstractContextManager[None]]


def _stopped(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return down(deployment, of_the_consumer(deployment, stream), deployment.stop)


def _killed(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return down(deployment, management.leader(deployment, stream.topology), deployment.kill)


def _powerless(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return switched(deployment, of_the_consumer(deployment, stream), off="kill", on="start")


def _silent(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return cut(deployment, of_the_consumer(deployment, stream))


def _alone(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    victim = of_the_consumer(deployment, stream)
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
