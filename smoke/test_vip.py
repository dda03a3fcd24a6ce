"""What clients of the virtual address feel when a balancer goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from smoke.deployment import Balancer, Deployment
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.stream import BUSY, GATE, flowing
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]


@pytest.fixture(autouse=True)
def _needs_a_virtual_address(deployment: Deployment) -> None:
    if not deployment.vip:
        pytest.skip("needs a virtual address in front of several balancers (keepalived_vip)")


def test_a_busy_stream_survives_a_killed_balancer(deployment: Deployment, record: Callable[[Verdict], None]) -> None:
    with flowing(deployment, rate=BUSY) as stream:
        victim = deployment.holder()
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
        verdict = stream.verdict(since=begin)
        record(verdict)
        # The promise is for the median; one run also draws from the clients' backoff, up to 0.8 s at the fourth try.
        assert max(verdict.delivery_gap.seconds, verdict.confirm_gap.seconds) <= 2 * GATE, verdict.sentence()


def holder_instead_of(deployment: Deployment, victim: Balancer) -> Balancer | None:
    """Return the balancer that holds the virtual address, if it is another one."""
    holder = deployment.holder()
    return holder if holder != victim else None
