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
        dead_letter_exchange: where a quorum queue sends what it gives up, under the same routing key; empty forgets it.
        delivery_limit: how often a quorum queue delivers a message again before it gives it up; None is what the
            broker has as its default.
        single_active_consumer: only one consumer gets messages at a time, which keeps their order.
    """

    exchange: str = "cluster_test"
    queue: str = "cluster_test"
    routing_key: str = "cluster_test"
    queue_type: QueueType = QueueType.QUORUM
    dead_letter_exchange: str = ""
    delivery_limit: int | None = None
    single_active_consumer: bool = False

    @property
    def queue_arguments(self) -> dict[str, str | int | bool]:
        """The arguments of queue.declare. A broker refuses (406) a queue that exists with others."""
        arguments: dict[str, str | int | bool] = {"x-queue-type": str(self.queue_type)}
        if self.dead_letter_exchange:
            # A message leaves the queue once another has confirmed it. RabbitMQ ignores the strategy with any other
            # overflow (documentation, "Quorum Queues", since 3.10).
            arguments |= {
                "x-dead-letter-exchange": self.dead_letter_exchange,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        if self.delivery_limit is not None:
            arguments["x-delivery-limit"] = self.delivery_limit
        if self.single_active_consumer:
            arguments["x-single-active-consumer"] = True
        return arguments


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
