"""The faults that are compared: those of the smoke suite, each as long as it takes its clients to do without.

The tests of the suite are not run themselves: they insist on what our own settings promise, such as that a balancer
sees a node DOWN that is cut off from its peers, and end there if it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from smoke import gates, journal, management
from smoke.deployment import Deployment
from smoke.network import cut
from smoke.outlive import down, frozen, of_the_consumer, on_disk, switched, until_given_up
from smoke.stream import Stream


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and what is promised for it.

    Attributes:
        breaks: finds the victim while clients work; what it returns breaks it, and repairs it at the end of a block.
        gate: the longest silence, in seconds, for the median with the profile "lan" and RabbitMQ's version of the lab.
    """

    breaks: Callable[[Deployment, Stream], AbstractContextManager[None]]
    gate: float


def _stopped(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return down(deployment, of_the_consumer(deployment, stream), deployment.stop)


def _killed(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return down(deployment, management.leader(deployment, stream.topology), deployment.kill)


def _powerless(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return switched(deployment, of_the_consumer(deployment, stream), off="kill", on="start")


def _frozen(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return until_given_up(deployment, frozen(deployment, of_the_consumer(deployment, stream)))


def _host_frozen(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    victim = of_the_consumer(deployment, stream)
    return until_given_up(deployment, switched(deployment, victim, off="freeze", on="thaw"))


def _silent(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    return cut(deployment, of_the_consumer(deployment, stream))


def _alone(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    victim = of_the_consumer(deployment, stream)
    return cut(deployment, victim, peers=deployment.others(victim))


def _balancer(deployment: Deployment, _: Stream) -> AbstractContextManager[None]:
    return _without_its_balancer(deployment)


def _balancer_powerless(deployment: Deployment, _: Stream) -> AbstractContextManager[None]:
    return switched(deployment, deployment.holder(), off="kill", on="start")


def _all_powerless(deployment: Deployment, stream: Stream) -> AbstractContextManager[None]:
    on_disk(stream)
    return _power_comes_back(deployment)


# By the names of the document, and in its order.
FAULTS: dict[str, Fault] = {
    "node of the clients stopped": Fault(_stopped, gates.STOPPED),
    "leader of the queue killed": Fault(_killed, gates.KILLED),
    "host of the clients without power": Fault(_powerless, gates.HOST_LOST),
    "node of the clients frozen": Fault(_frozen, gates.FROZEN_MNESIA),
    "host of the clients frozen": Fault(_host_frozen, gates.FROZEN),
    "node of the clients cut off from everyone, silently": Fault(_silent, gates.CUT_OFF),
    "node of the clients cut off from its peers only": Fault(_alone, gates.CUT_OFF),
    "HAProxy killed that holds the virtual address": Fault(_balancer, gates.BALANCER_LOST),
    "host of that HAProxy without power": Fault(_balancer_powerless, gates.BALANCER_LOST),
    "hosts of all nodes without power, and back at once": Fault(_all_powerless, gates.ALL_LOST),
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


@contextmanager
def _power_comes_back(deployment: Deployment) -> Iterator[None]:
    with switched(deployment, *deployment.nodes, off="kill", on="start"):
        pass
    yield
