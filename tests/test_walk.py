"""The random walk: what a seed promises, and what is done to which deployment."""

from itertools import islice
from types import SimpleNamespace
from typing import cast

import pytest

from smoke.deployment import Deployment, Node
from smoke.gates import SPREAD, TIE, promised
from smoke.walk import LONGEST, SHORTEST, Step, known_faults, walk

NAMES = ("rabbit1", "rabbit2", "rabbit3")
FAULTS = ["a", "b", "c"]


def deployment(*, power: bool = True, profile: str = "lan", vip: str = "192.0.2.1") -> Deployment:
    nodes = [
        Node(name, f"rabbit@{name}", "cluster", "127.0.0.1", 1, 2, {"rabbitmq_profile": profile}) for name in NAMES
    ]
    switches = {name: {"kill": "true"} if power else {} for name in NAMES}
    return cast(Deployment, SimpleNamespace(nodes=nodes, balancers=[], power=switches, vip=vip, **METHODS))


METHODS = dict.fromkeys(("stop", "kill"), lambda _: None)


def steps(seed: int) -> list[Step]:
    return list(islice(walk(seed, FAULTS), 50))


def test_the_same_seed_is_the_same_walk() -> None:
    assert steps(7) == steps(7)


def test_another_seed_is_another_walk() -> None:
    assert steps(7) != steps(8)


def test_a_walk_comes_by_every_fault_and_keeps_to_its_bounds() -> None:
    assert {step.fault for step in steps(1)} == set(FAULTS)
    assert all(SHORTEST <= step.seconds <= LONGEST for step in steps(1))


def test_hosts_that_cannot_be_switched_are_neither_switched_nor_cut_off() -> None:
    assert set(known_faults(deployment(power=False))) == {"stop a node", "kill a node", "freeze a node"}


def test_hosts_that_can_be_switched_are() -> None:
    assert {"switch a host off", "cut a node off from its peers"} < set(known_faults(deployment()))


@pytest.mark.parametrize("other", [{"profile": "default"}, {"vip": ""}])
def test_only_the_profile_lan_on_hosts_of_their_own_promises_anything(other: dict[str, str]) -> None:
    assert promised(deployment(), 1.5) == 1.5 * SPREAD
    assert promised(deployment(**other), 1.5) is None  # type: ignore[arg-type]


def test_ties_of_an_election_add_to_a_short_promise_and_not_to_a_long_one() -> None:
    assert promised(deployment(), 0.5, ties=0) == 0.5 * SPREAD
    assert promised(deployment(), 0.5, ties=2) == 0.5 + 2 * TIE
    assert promised(deployment(), 4.0, ties=2) == 4.0 * SPREAD


def test_where_nothing_is_promised_there_is_no_limit() -> None:
    assert promised(deployment(), None) is None
