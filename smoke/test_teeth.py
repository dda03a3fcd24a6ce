"""Clients that do one thing wrong, each under a fault that the others survive: the verdict has to be against them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from urllib.error import HTTPError

import pytest

from smoke import broken, management
from smoke.deployment import Deployment, Node
from smoke.history import Kind
from smoke.judge import MOST_ATTEMPTS, Verdict
from smoke.outlive import leaves
from smoke.stream import RATE, Clients, Stream, flowing
from smoke.topology import QueueType
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full]

# A fault finds messages in hand and in the queue after this many deliveries to a slow consumer.
SOME = int(2 * RATE)
# How long a broken client has to get back what it will never get back, in seconds; a sound one needs less.
PATIENCE = 15.0


def test_a_consumer_that_acknowledges_on_receipt_loses_what_it_had_in_hand(deployment: Deployment) -> None:
    with (
        flowing(deployment, clients=broken.SLOW) as sound,
        flowing(deployment, clients=broken.AUTO_ACK) as culprit,
    ):
        begin = time.monotonic()
        for stream in (sound, culprit):
            stream.wait_for(Kind.delivery, SOME // 2, since=0.0, what="the slow consumer has something in hand")
            cut(deployment, stream, since=begin)
        for stream in (sound, culprit):
            stream.wait_for(Kind.delivery, SOME // 2, since=time.monotonic(), what="messages flow again")
            stream.assert_noticed("consumer", since=begin)

        convict(culprit, begin, lambda verdict: verdict.lost or verdict.unacknowledged)
        acquit(sound, begin)


@pytest.mark.parametrize(
    ("clients", "crime"),
    [
        pytest.param(broken.NO_CONFIRMS, lambda verdict: verdict.lost, id="takes-sent-for-safe"),
        pytest.param(broken.NO_REPUBLISH, lambda verdict: verdict.abandoned, id="does-not-publish-again"),
    ],
)
def test_a_producer_that_does_not_see_to_its_messages_loses_those_that_a_node_never_read(
    deployment: Deployment, clients: Clients, crime: Callable[[Verdict], object]
) -> None:
    """The node is frozen first, so that for certain there are some, and then killed."""
    with flowing(deployment) as sound, flowing(deployment, clients=clients) as culprit:
        victim = node_of(deployment, culprit, "producer")
        begin = time.monotonic()
        freeze(deployment, victim)
        culprit.wait_for(Kind.publish, 5, since=time.monotonic(), what="messages are sent to the frozen node")
        deployment.kill(victim)
        for stream in (sound, culprit):
            stream.wait_for(Kind.delivery, SOME, since=time.monotonic(), what="messages flow again")
        deployment.start(victim)
        culprit.assert_noticed("producer", since=begin)

        convict(culprit, begin, crime)
        acquit(sound, begin)


def test_transient_messages_in_an_unreplicated_queue_die_with_its_node(deployment: Deployment) -> None:
    with classic(deployment, broken.TRANSIENT) as (culprit, home):
        culprit.wait_for(Kind.confirm, SOME, since=time.monotonic(), what="messages wait in the queue")
        begin = time.monotonic()
        deployment.kill(home)
        leaves(culprit, since=begin)
        deployment.start(home)
        culprit.wait_for(Kind.delivery, 1, since=time.monotonic(), what="messages flow again")

        convict(culprit, begin, lambda verdict: verdict.lost)


def test_persistent_messages_in_an_unreplicated_queue_survive_its_node(deployment: Deployment) -> None:
    """The control of the one above and the one below: everything else is the same."""
    with classic(deployment, broken.SLOW) as (sound, home):
        sound.wait_for(Kind.confirm, SOME, since=time.monotonic(), what="messages wait in the queue")
        begin = time.monotonic()
        deployment.kill(home)
        leaves(sound, since=begin)
        deployment.start(home)
        sound.wait_for(Kind.delivery, 1, since=time.monotonic(), what="messages flow again")

        acquit(sound, begin)


def test_a_consumer_that_does_not_hear_that_it_is_cancelled_gets_nothing_any_more(deployment: Deployment) -> None:
    with classic(deployment, broken.NO_CANCEL) as (culprit, home):
        begin = time.monotonic()
        deployment.kill(home)
        deployment.start(home)
        culprit.wait_for(Kind.confirm, SOME, since=time.monotonic(), what="messages are taken again")
        culprit.assert_noticed("producer", since=begin)

        convict(culprit, begin, lambda verdict: "tail" in verdict.lost_where)


def test_clients_that_try_again_at_once_storm_a_balancer_without_servers(deployment: Deployment) -> None:
    with flowing(deployment) as sound, flowing(deployment, clients=broken.STORMING) as culprit:
        begin = time.monotonic()
        try:
            deployment.balancer_state(deployment.nodes, "maint")
            for stream in (sound, culprit):
                cut(deployment, stream, since=begin)
            sound.wait_for(Kind.connecting, 8, since=begin, what="our clients try again, too")
            for client in ("producer", "consumer"):
                culprit.wait_for(
                    Kind.connecting, 3 * MOST_ATTEMPTS, since=begin, client=client, what=f"the {client} storms"
                )
        finally:
            deployment.balancer_state(deployment.nodes, "ready")
        for stream in (sound, culprit):
            stream.wait_for(Kind.delivery, SOME, since=time.monotonic(), what="messages flow again")
            stream.assert_noticed("producer", "consumer", since=begin)

        convict(culprit, begin, lambda verdict: all(tries.complaint for tries in verdict.attempts.values()))
        acquit(sound, begin)


def convict(stream: Stream, since: float, crime: Callable[[Verdict], object]) -> None:
    """Insist that the verdict is against the clients of a stream, and for what they have done."""
    stream.end(PATIENCE)
    verdict = stream.verdict(since=since)
    print(verdict.sentence())
    assert crime(verdict), f"not found out: {verdict.sentence()}"
    assert not verdict.ok, verdict.sentence()


def acquit(stream: Stream, since: float) -> None:
    """Insist that the same fault did no harm to clients that do it right."""
    stream.finish()
    verdict = stream.verdict(since=since)
    assert verdict.ok, verdict.sentence()


@contextmanager
def classic(deployment: Deployment, clients: Clients) -> Iterator[tuple[Stream, Node]]:
    """A stream through a classic queue, and the node that is its home and has none of the clients."""
    with flowing(deployment, QueueType.CLASSIC, clients=clients) as stream:
        home = management.leader(deployment, stream.topology)
        stream.place_away_from(home)
        yield stream, home


def freeze(deployment: Deployment, node: Node) -> None:
    """Stop the process of a node: its kernel answers, and it does not."""
    process = management.get(deployment, node, f"nodes/{node.nodename}")["os_pid"]
    deployment.run(node, f"kill -STOP {int(process)}")


def node_of(deployment: Deployment, stream: Stream, client: str) -> Node:
    """Return the node to which a client is connected."""
    found = eventually(
        partial(stream.events, Kind.located, since=0.0, client=client), within=30, what=f"the {client} is located"
    )
    return deployment.node(found[-1].where)


def cut(deployment: Deployment, stream: Stream, *, since: float) -> None:
    """Close the connections of a stream, as an operator does, until both clients have lost one since a moment."""

    def lost() -> bool:
        if {event.client for event in stream.events(Kind.lost, since=since)} == {"producer", "consumer"}:
            return True
        for connection in management.connections(deployment, stream.topology):
            # One that has just gone by itself is refused.
            with contextlib.suppress(HTTPError):
                management.close_connection(deployment, connection["name"])
        return False

    eventually(lost, within=30, every=0.5, what="the connections are seen, and closed")
