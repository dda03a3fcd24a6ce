"""What clients of the virtual address feel when a balancer goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from smoke.deployment import Balancer, Deployment
from smoke.history import Kind
from smoke.report import Record
from smoke.stream import BUSY, GATE, flowing
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]


@pytest.fixture(autouse=True)
def _needs_a_virtual_address(deployment: Deployment) -> None:
    if not deployment.vip:
        pytest.skip("needs a virtual address in front of several balancers (keepalived_vip)")


@pytest.fixture
def victim(deployment: Deployment) -> Iterator[Balancer]:
    """The balancer that holds the virtual address; its HAProxy stays down once killed, until the test ends."""
    holder = deployment.holder()
    # Otherwise systemd has it back within a few hundredths of a second, maybe before keepalived has asked for it.
    deployment.run(holder, "systemctl mask --runtime haproxy")
    yield holder
    deployment.run(holder, "systemctl unmask --runtime haproxy && systemctl start haproxy")


def test_a_busy_stream_survives_a_killed_balancer(deployment: Deployment, victim: Balancer, record: Record) -> None:
    with flowing(deployment, rate=BUSY) as stream:
        begin = time.monotonic()
        deployment.run(victim, "systemctl kill --signal=SIGKILL haproxy")
        successor = eventually(
            partial(holder_instead_of, deployment, victim),
            within=30,
            what=f"another balancer than {victim.name} holds {deployment.vip}",
        )
        assert stream.events(Kind.lost, since=begin), "no client noticed"
        stream.wait_for(
            Kind.delivery, int(BUSY), since=time.monotonic(), what=f"messages flow through {successor.name}"
        )
        stream.finish()
        # The promise is for the median; one run also draws from the clients' backoff, up to 0.8 s at the fourth try.
        record(stream.verdict(since=begin), gate=2 * GATE)


@pytest.mark.full
def test_a_virtual_address_that_the_inventory_has_no_more_is_given_up(deployment: Deployment) -> None:
    try:
        deployment.playbook("site", deployment.balancers, extra={"keepalived_vip": ""})
        with pytest.raises(AssertionError, match=r"no balancer holds"):
            deployment.holder()
    finally:
        deployment.playbook("site", deployment.balancers)
    assert deployment.holder() in deployment.balancers


def holder_instead_of(deployment: Deployment, victim: Balancer) -> Balancer | None:
    """Return the balancer that holds the virtual address, if it is another one."""
    holder = deployment.holder()
    return holder if holder != victim else None
