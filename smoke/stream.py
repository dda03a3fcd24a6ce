"""A steady stream of confirmed messages through the balancer, and what became of each."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError

from smoke import aftermath, journal, management
from smoke.consumer import Consumer
from smoke.deployment import Deployment, Node
from smoke.history import Event, History, Kind
from smoke.judge import Key, Verdict, disturbed, judge, unimpressed
from smoke.messages import Identity
from smoke.partition import recovered
from smoke.producer import Producer
from smoke.pulse import Pulse
from smoke.session import Settings
from smoke.topology import QueueType, Topology
from smoke.waiting import eventually
from smoke.watcher import Watcher
from smoke.whereabouts import Whereabouts

# Messages per second: enough that a gap of 0.1 s shows, little enough that the machine is never what limits it.
RATE = 50.0
# What the hosts of a deployment of its own have to stand, in messages per second.
BUSY = 500.0
# What the queues of streams are called.
NAMES = re.compile("smoke-[0-9a-f]{8}")
# How long everything confirmed has to arrive once publishing has stopped, in seconds. RabbitMQ 4.3 hands out what a
# lost consumer held only after 60 s (consumer_disconnected_timeout).
SETTLE = 90.0


@dataclass(frozen=True, slots=True)
class Clients:
    """Which clients are put to work; the broken ones have to be found out.

    Attributes:
        producer: makes the producer, of what it has to know and who takes its events.
        consumer: the same for the consumer.
    """

    producer: Callable[[Settings, Callable[[Event], None]], Producer] = lambda settings, observe: Producer(
        settings, observe=observe
    )
    consumer: Callable[[Settings, Callable[[Event], None]], Consumer] = lambda settings, observe: Consumer(
        settings, lambda _: None, observe=observe
    )


class Stream:
    """A producer and a consumer at work on a queue of their own, until finish().

    Args:
        deployment: where.
        queue_type: of the queue.
        rate: messages per second.
        clients: that work.
        like: what its queue has beside a type and the names, which are its own.
    """

    def __init__(
        self,
        deployment: Deployment,
        queue_type: QueueType = QueueType.QUORUM,
        *,
        rate: float = RATE,
        clients: Clients = Clients(),
        like: Topology | None = None,
    ) -> None:
        self._deployment = deployment
        self._rate = rate
        name = f"smoke-{uuid.uuid4().hex[:8]}"
        self.topology = replace(like or Topology(), exchange=name, queue=name, routing_key=name, queue_type=queue_type)
        self.history = History()
        self.recording = journal.Recording(
            self.history, queue_type, rate, {node.nodename: node.name for node in deployment.nodes}
        )
        settings = deployment.settings(self.topology)
        self._consumer = clients.consumer(settings, self.history)
        self._producer = clients.producer(settings, self.history)
        self._whereabouts = Whereabouts(deployment, self.topology, self.history)
        self._stop = threading.Event()
        self._publishing = threading.Lock()
        self._ended = 0.0
        self._publisher = threading.Thread(target=self._publish, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin, and return once messages flow."""
        self._consumer.start()
        self._producer.start()
        self._publisher.start()
        self._whereabouts.start()
        self.wait_for(Kind.delivery, 10, since=0.0, what="messages flow before the fault")

    def events(self, kind: Kind, *, since: float, client: str = "") -> list[Event]:
        """Return the events of a kind since a moment (time.monotonic(), seconds), of one client or all."""
        return [event for event in self.history.since(since) if event.kind is kind and client in ("", event.client)]

    def wait_for(
        self, kind: Kind, count: int, *, since: float, what: str, client: str = "", within: float = 60
    ) -> None:
        """Wait for so many events of a kind since a moment."""
        eventually(lambda: len(self.events(kind, since=since, client=client)) >= count, within=within, what=what)

    def assert_noticed(self, *clients: str, since: float) -> None:
        """Insist that a fault was one: each of these clients lost its connection, or was refused something."""
        vacuous = unimpressed(self.history.since(since), clients, since=since)
        assert not vacuous, f"the fault had no effect, this test proves nothing: {', '.join(vacuous)} noticed nothing"

    def assert_undisturbed(self, *clients: str, since: float) -> None:
        """Insist that each of these clients, which were not on the victim of a fault, kept its connection."""
        felt = [
            f"{event.client} after {event.at - since:.2f} s: {event.kind} {event.where} {event.detail}"
            for event in disturbed(self.history.since(since), clients, since=since)
        ]
        assert not felt, f"a client that was not on the victim was disturbed: {'; '.join(felt)}"

    def place_away_from(self, node: Node) -> None:
        """Close connections until neither client is on a node: the balancer gives them another one each time."""

        def away() -> bool:
            connections = list(management.connections(self._deployment, self.topology))
            for connection in connections:
                if connection["node"] == node.nodename:
                    management.close_connection(self._deployment, connection["name"])
            return len(connections) == 2 and all(found["node"] != node.nodename for found in connections)

        eventually(away, within=60, every=1, what=f"no client is connected to {node.name}")

    def elsewhere(self, node: Node) -> list[str]:
        """Return which of its clients are connected to another node: those that have nothing to do with its faults."""

        def located() -> dict[str, str] | None:
            connected = {event.client: event.detail for event in self.events(Kind.connected, since=0.0)}
            seen = {
                connection["client_properties"]["connection_name"]: connection["node"]
                for connection in management.connections(self._deployment, self.topology)
                if connection.get("node")
            }
            found = {client: seen.get(name, "") for client, name in connected.items()}
            return found if all(found.values()) else None

        nodes = eventually(located, within=30, what="every client is seen")
        return [client for client, nodename in nodes.items() if nodename != node.nodename]

    def publish(self, content: str) -> Key:
        """Publish a message with another content beside the others; returns what verdicts call it."""
        return self._producer.producer, self._producer.publish(content, timeout=SETTLE)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Publish nothing within the block, at whose beginning everything published is confirmed and processed."""
        with self._publishing:
            assert self._producer.flush(SETTLE), f"messages were not confirmed within {SETTLE:g} s of the last one"
            eventually(self._settled, within=SETTLE, what="every confirmed message is processed")
            yield

    def stop_publishing(self) -> None:
        """Publish no more, and wait until everything published is confirmed."""
        self._stop.set()
        self._publisher.join()
        self._ended = self._ended or time.monotonic()
        unconfirmed = self._producer.stop(SETTLE)
        assert unconfirmed == 0, f"{unconfirmed} messages were not confirmed within {SETTLE:g} s of the last one"

    def finish(self) -> None:
        """Publish no more, let everything confirmed arrive, and insist that no queue bears a scar."""
        self.stop_publishing()
        eventually(self._settled, within=SETTLE, every=0.5, what="every confirmed message is processed")
        if self._deployment.clustered:
            eventually(self._empty, within=SETTLE, every=0.5, what=f"{self.topology.queue} is empty")
            # In a partition that autoheal left, a node may not know what has become of a queue.
            recovered(
                self._deployment,
                lambda deployment: aftermath.assert_no_orphans(deployment, self.topology),
                aftermath.assert_replicated,
            )
        self._consumer.stop()

    def end(self, within: float) -> None:
        """Publish no more, and give what was confirmed so many seconds to arrive. The verdict says whether it did."""
        self.stop_publishing()
        with contextlib.suppress(AssertionError):
            eventually(self._settled, within=within, every=0.5, what="every confirmed message is processed")
        self._consumer.stop(within)

    def verdict(self, since: float, *, ordered: bool = False, excused: Collection[Identity] = ()) -> Verdict:
        """Judge the whole history; gaps count from a moment (time.monotonic(), seconds) to the end of publishing.

        What is excused may be delivered twice without the flag.
        """
        verdict = judge(self.history.events(), since=since, until=self._ended, ordered=ordered)
        verdict = replace(verdict, unexplained=tuple(one for one in verdict.unexplained if one not in excused))
        self.recording.verdict, self.recording.since, self.recording.until = verdict, since, self._ended
        return verdict

    def remove(self) -> None:
        """End what still runs, and remove queue and exchange."""
        self._stop.set()
        # From the last one to the first, each whatever the others raise.
        with contextlib.ExitStack() as steps:
            steps.callback(eventually, self._removed, within=60, every=1, what=f"{self.topology.queue} is removed")
            steps.callback(self._whereabouts.stop)
            steps.callback(self._consumer.stop, 0)
            steps.callback(self._producer.stop, 0)

    def _settled(self) -> bool:
        verdict = judge(self.history.events())
        assert not verdict.lost, verdict.sentence()
        assert not verdict.vanished, verdict.sentence()
        assert not verdict.unacknowledged, verdict.sentence()
        return True

    def _empty(self) -> bool:
        # The broker answers from the queue itself, not from figures that it collected some seconds ago.
        try:
            with self._channel() as channel:
                count = channel.queue_declare(self.topology.queue, passive=True).method.message_count
        except AMQPError as error:
            raise AssertionError(f"not told how many messages it has: {error!r}") from error
        assert count == 0, f"{count} messages"
        return True

    def _removed(self) -> bool:
        try:
            with self._channel() as channel:
                channel.queue_delete(self.topology.queue)
                channel.exchange_delete(self.topology.exchange)
                return True
        except AMQPError:
            return False

    @contextmanager
    def _channel(self) -> Iterator[BlockingChannel]:
        endpoint = self._deployment.endpoint
        with pika.BlockingConnection(
            pika.ConnectionParameters(
                endpoint.host,
                endpoint.port,
                credentials=pika.PlainCredentials(self._deployment.user, self._deployment.password),
            )
        ) as connection:
            yield connection.channel()

    def _publish(self) -> None:
        number = 0
        begin = time.monotonic()
        # By the clock, so that a late wake-up costs no message; what an interruption held up is not caught up with.
        while not self._stop.wait(max(0.0, begin + number / self._rate - time.monotonic())):
            if time.monotonic() - begin > (number + self._rate) / self._rate:
                begin, number = time.monotonic(), 0
            number += 1
            try:
                with self._publishing:
                    self._producer.publish("smoke", timeout=SETTLE)
            except TimeoutError:
                continue
            except RuntimeError:
                return


@contextmanager
def flowing(
    deployment: Deployment,
    queue_type: QueueType = QueueType.QUORUM,
    *,
    rate: float = RATE,
    clients: Clients = Clients(),
    like: Topology | None = None,
) -> Iterator[Stream]:
    """A stream that flows from the beginning of the block on, and leaves nothing behind."""
    stream = Stream(deployment, queue_type, rate=rate, clients=clients, like=like)
    with journal.recording(stream.recording), Watcher(deployment, stream.history), Pulse(stream.history):
        try:
            stream.start()
            yield stream
        finally:
            stream.remove()
