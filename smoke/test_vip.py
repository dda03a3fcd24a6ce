"""What clients of the virtual address feel when a balancer goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from smoke import journal
from smoke.deployment import Balancer, Deployment
from smoke.gates import BALANCER_FROZEN, BALANCER_LOST, promised
from smoke.history import Kind
from smoke.outlive import flow, survived
from smoke.report import Record
from smoke.stream import BUSY, flowing
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
        successor = elsewhere(deployment, victim)
        assert stream.events(Kind.lost, since=begin), "no client noticed"
        stream.wait_for(
            Kind.delivery, int(BUSY), since=time.monotonic(), what=f"messages flow through {successor.name}"
        )
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(deployment, BALANCER_LOST))


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "healing", "gate"),
    [
        # Its kernel still accepts connections, and nobody serves them.
        pytest.param(
            "systemctl kill --signal=STOP haproxy", "systemctl kill --signal=CONT haproxy", BALANCER_FROZEN, id="frozen"
        ),
        # Before a host is switched off, say: keepalived gives the address up by itself.
        pytest.param("systemctl stop keepalived", "systemctl start keepalived", BALANCER_LOST, id="handing over"),
    ],
)
def test_a_balancer_loses_its_address(
    deployment: Deployment, record: Record, fault: str, healing: str, gate: float
) -> None:
    with flowing(deployment) as stream:
        holder = deployment.holder()
        begin = time.monotonic()
        with journal.fault(f"{holder.name}: {fault}"):
            deployment.run(holder, fault)
            try:
                elsewhere(deployment, holder)
                survived(stream, begin, "messages flow through the other balancer")
            finally:
                deployment.run(holder, healing)
        flow(stream, f"messages flow with {holder.name} back")
        stream.finish()
        record(stream.verdict(since=begin), gate=promised(deployment, gate))


@pytest.mark.full
def test_a_virtual_address_that_the_inventory_has_no_more_is_given_up(deployment: Deployment) -> None:
    try:
        deployment.playbook("site", deployment.balancers, extra={"keepalived_vip": ""})
        with pytest.raises(AssertionError, match=r"no balancer holds"):
            deployment.holder()
    finally:
        deployment.playbook("site", deployment.balancers)
    assert deployment.holder() in deployment.balancers


def elsewhere(deployment: Deployment, victim: Balancer) -> Balancer:
    """Wait until another balancer holds the virtual address, and return it."""
    return eventually(
        partial(_holder_instead_of, deployment, victim),
        within=30,
        what=f"another balancer than {victim.name} holds {deployment.vip}",
    )


def _holder_instead_of(deployment: Deployment, victim: Balancer) -> Balancer | None:
    holder = deployment.holder()
    return holder if holder != victim else None
