"""A warren: two brokers that know nothing of each other, the second one taking over when the first is gone."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.outlive import assert_up
from smoke.stream import RATE, flowing
from smoke.waiting import eventually

pytestmark = pytest.mark.disruptive


def test_a_client_that_rebuilds_everything_moves_to_an_unrelated_broker_and_back(
    deployment: Deployment, record: Callable[[Verdict], None]
) -> None:
    if deployment.clustered:
        pytest.skip("needs brokers that are not clustered")
    backups = deployment.balancer.backup_servers
    first, second = sorted(deployment.nodes, key=lambda node: node.name in backups)

    with flowing(deployment) as stream:
        assert not knows(deployment, second, stream.topology.exchange), "the brokers share their exchanges"
        begin = time.monotonic()
        deployment.stop(first)
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what=f"messages flow through {second.name}")
        assert knows(deployment, second, stream.topology.exchange), "the client has not built its exchange there"

        # What the first broker still holds is there again when it is back, for a client that goes there.
        deployment.start(first)
        assert_up(deployment, first)
        stream.stop_publishing()
        eventually(
            lambda: management.queue(deployment, second, stream.topology).get("messages") == 0,
            within=60,
            what=f"{second.name} has delivered everything it was given",
        )
        deployment.stop(second)
        stream.finish()
        deployment.start(second)
        management.delete(deployment, second, f"queues/%2F/{stream.topology.queue}")
        management.delete(deployment, second, f"exchanges/%2F/{stream.topology.exchange}")
        record(stream.verdict(since=begin))


def knows(deployment: Deployment, node: Node, exchange: str) -> bool:
    """Say whether a broker has an exchange."""
    return exchange in {found["name"] for found in management.get(deployment, node, "exchanges/%2F")}
