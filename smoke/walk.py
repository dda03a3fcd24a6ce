"""A random walk through all that can go wrong: which step comes when, and how it is done to a deployment."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from smoke.deployment import Deployment, Node
from smoke.network import DROP, REJECT, cut
from smoke.outlive import down, frozen, switched

# How long a fault lasts, in seconds: from too short to be noticed to longer than every detection of the profile "lan".
SHORTEST, LONGEST = 0.5, 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a walk.

    Attributes:
        fault: its name.
        victim: which node, or which balancer, counted from 0 and by the number of those there are.
        seconds: how long it lasts.
    """

    fault: str
    victim: int
    seconds: float


def walk(seed: int, faults: list[str]) -> Iterator[Step]:
    """Return the steps that belong to a seed: the same ones whenever, and however quickly, they are taken."""
    chance = random.Random(seed)
    while True:
        yield Step(chance.choice(faults), chance.randrange(1000), round(chance.uniform(SHORTEST, LONGEST), 1))


def known_faults(deployment: Deployment) -> dict[str, Callable[[int], AbstractContextManager[None]]]:
    """Return what can be done to a deployment, by name; each takes the number of its victim."""

    def to_a_node(
        fault: Callable[[Node], AbstractContextManager[None]],
    ) -> Callable[[int], AbstractContextManager[None]]:
        return lambda number: fault(deployment.nodes[number % len(deployment.nodes)])

    def to_a_balancer(number: int) -> AbstractContextManager[None]:
        return switched(deployment, deployment.balancers[number % len(deployment.balancers)], off="kill", on="start")

    anywhere = {
        "stop a node": to_a_node(partial(down, deployment, how=deployment.stop)),
        "kill a node": to_a_node(partial(down, deployment, how=deployment.kill)),
        "freeze a node": to_a_node(partial(frozen, deployment)),
    }
    if not all(deployment.power.values()):
        return anywhere
    return {
        **anywhere,
        "switch a host off": to_a_node(lambda node: switched(deployment, node, off="kill", on="start")),
        "freeze a host": to_a_node(lambda node: switched(deployment, node, off="freeze", on="thaw")),
        "cut a node off": to_a_node(lambda node: cut(deployment, node, verdict=DROP)),
        "cut a node off with resets": to_a_node(lambda node: cut(deployment, node, verdict=REJECT)),
        "cut a node off from its peers": to_a_node(lambda node: cut(deployment, node, peers=deployment.others(node))),
        "let a node hear nothing": to_a_node(lambda node: cut(deployment, node, outgoing=False)),
        "lose a tenth of the packets": to_a_node(lambda node: cut(deployment, node, share=10)),
        "switch a balancer off": to_a_balancer,
    }
