"""What the balancer promises: how soon it sees a failure and a return, what backup means, and unfelt reloads."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial

import pika
import pytest
from pika.exceptions import AMQPError

from smoke import balancer_stats
from smoke.aftermath import connections_given
from smoke.deployment import Balancer, Deployment, Node
from smoke.history import Kind
from smoke.report import Record
from smoke.stream import RATE, flowing
from smoke.waiting import eventually

pytestmark = pytest.mark.disruptive

# How much later than promised a busy machine may show it, in seconds: the test asks every 0.05 s, and a check itself
# takes some milliseconds.
TOLERANCE = 0.5
# After how many seconds the balancer cuts idle sessions in a test, and for how long its clients are idle.
IDLE_TIMEOUT, IDLE = 30, 50


def test_a_stopped_server_is_down_and_up_again_within_the_bounds_of_the_check(deployment: Deployment) -> None:
    node = deployment.nodes[-1]
    promised = deployment.balancer.detection

    with Watch(deployment, node) as watch:
        watch.until(answers=True, status="UP")
        deployment.stop(node)
        refused, down = watch.until(answers=False, status="DOWN")
        deployment.start(node)
        answered, up = watch.until(answers=True, status="UP")

    print(f"DOWN {down - refused:.2f} s after the last answer, UP {up - answered:.2f} s after the first")
    assert promised.refused_min - TOLERANCE <= down - refused <= promised.refused_max + TOLERANCE
    assert 0 <= up - answered <= promised.up_max + TOLERANCE


@pytest.mark.full
def test_a_backup_server_gets_connections_only_while_every_other_one_is_out(
    deployment: Deployment, record: Record
) -> None:
    """A change of the pool is a reload of the balancer, which the clients of the stream must not feel."""
    backup = deployment.nodes[-1]
    pool = deployment.others(backup)
    balancers = deployment.balancers

    with flowing(deployment) as stream:
        begin = time.monotonic()
        try:
            deployment.playbook("site", balancers, extra={"haproxy_backup_servers": [backup.name]})
            assert all(balancer_stats.servers(balancer)[backup.name].backup for balancer in balancers)
            assert connections_given(deployment, 4)[backup.name] == 0

            deployment.balancer_state(pool, "maint")
            assert connections_given(deployment, 4) == {
                node.name: 4 if node == backup else 0 for node in deployment.nodes
            }

            deployment.balancer_state(pool, "ready")
            for balancer in balancers:
                eventually(partial(all_up, balancer), within=30, what=f"{balancer.name} sees every server UP")
            assert connections_given(deployment, 4)[backup.name] == 0
        finally:
            deployment.playbook("site", balancers)
        assert not any(balancer_stats.servers(balancer)[backup.name].backup for balancer in balancers)

        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow after the reloads")
        stream.finish()
        assert stream.events(Kind.lost, since=begin) == [], "a reload cut a session"
        record(stream.verdict(since=begin))


@pytest.mark.full
@pytest.mark.cluster
def test_clients_that_are_idle_for_longer_than_the_balancer_allows_keep_their_connections(
    deployment: Deployment, record: Record
) -> None:
    """The producer's heartbeats are traffic, and the consumer's questions; a client without either is the control."""
    endpoint = deployment.endpoint
    credentials = pika.PlainCredentials(deployment.user, deployment.password)
    silent = pika.ConnectionParameters(endpoint.host, endpoint.port, credentials=credentials, heartbeat=0)
    try:
        deployment.playbook("site", deployment.balancers, extra={"haproxy_idle_timeout": IDLE_TIMEOUT})
        with flowing(deployment) as stream:
            begin = time.monotonic()
            with pika.BlockingConnection(silent) as connection, stream.paused():
                # Time is what is tested.
                time.sleep(IDLE)
                with pytest.raises(AMQPError):
                    connection.channel()
            stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow after the rest")
            stream.finish()
            stream.assert_undisturbed("producer", "consumer", since=begin)
            record(stream.verdict(since=begin))
    finally:
        deployment.playbook("site", deployment.balancers)


def all_up(balancer: Balancer) -> bool:
    """Say whether a balancer sees every server UP."""
    return set(balancer_stats.statuses(balancer).values()) == {"UP"}


class Watch:
    """Notes, every 0.05 s and in the background, when a node began or ceased to answer and what the balancer said."""

    def __init__(self, deployment: Deployment, node: Node) -> None:
        self._deployment = deployment
        self._node = node
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        # The latest change of each: the state and when it was first seen, time.monotonic() in seconds.
        self.answers: tuple[bool | None, float] = (None, 0.0)
        self.status: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def until(self, *, answers: bool, status: str) -> tuple[float, float]:
        """Wait for both, and return when each was first seen."""
        eventually(
            lambda: self.answers[0] is answers and self.status[0] == status,
            within=60,
            what=f"{self._node.name} {'answers' if answers else 'does not answer'} and is {status}",
        )
        return self.answers[1], self.status[1]

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            answers = self._connects()
            if answers is not self.answers[0]:
                self.answers = (answers, time.monotonic())
            status = balancer_stats.statuses(self._deployment.balancer)[self._node.name]
            if status != self.status[0]:
                self.status = (status, time.monotonic())

    def _connects(self) -> bool:
        try:
            with socket.create_connection((self._node.address, self._node.amqp_port), timeout=1):
                return True
        except OSError:
            return False
