"""What the clients need to exist on a broker, and how to make it exist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pika.channel import Channel


class QueueType(StrEnum):
    """The value of the queue argument x-queue-type (RabbitMQ documentation, "Queues")."""

    QUORUM = "quorum"
    CLASSIC = "classic"


@dataclass(frozen=True, slots=True)
class Topology:
    """A durable direct exchange, a durable queue, and the binding between them.

    Attributes:
        exchange: name of the exchange.
        queue: name of the queue.
        routing_key: of the binding, and of every message published.
        queue_type: quorum is replicated; classic lives on one node.
    """

    exchange: str = "cluster_test"
    queue: str = "cluster_test"
    routing_key: str = "cluster_test"
    queue_type: QueueType = QueueType.QUORUM

    @property
    def queue_arguments(self) -> dict[str, str]:
        """The arguments of queue.declare. A broker refuses (406) a queue that exists with others."""
        return {"x-queue-type": str(self.queue_type)}


def declare(channel: Channel, topology: Topology, on_done: Callable[[], None]) -> None:
    """Declare the whole topology on an open channel, then call on_done.

    Declaring what exists already changes nothing (AMQP 0-9-1, exchange.declare and queue.declare). An error is not
    reported here: the broker answers it by closing the channel.
    """

    def bind(_: object) -> None:
        channel.queue_bind(topology.queue, topology.exchange, topology.routing_key, callback=lambda _: on_done())

    def declare_queue(_: object) -> None:
        channel.queue_declare(topology.queue, durable=True, arguments=topology.queue_arguments, callback=bind)

    channel.exchange_declare(topology.exchange, "direct", durable=True, callback=declare_queue)
