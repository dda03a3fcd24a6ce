"""The control: a consumer as tutorials write it, which dies with its connection.

It shows that the faults are real: a fault that this one survives has not been injected.

As a command: python smoke/standard_consumer.py HOST PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, cast

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from smoke import options
from smoke.messages import Message, decode
from smoke.session import Settings, describe


class ConsumerCancelledError(Exception):
    """The broker cancelled the consumer."""


def consume(
    settings: Settings,
    handler: Callable[[Message], None],
    *,
    prefetch: int = 20,
    consumer_tag: str = "cluster_test",
    on_ready: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Consume from the first endpoint until something goes wrong; then raise.

    Args:
        settings: where to connect, as whom, and the topology.
        handler: processes one message; it is acknowledged afterwards.
        prefetch: how many messages the broker may hand out ahead of acknowledgements.
        consumer_tag: identifies the consumer on its channel.
        on_ready: called once the consumer is registered.

    Raises:
        AMQPError: the connection or the channel was refused or lost.
        ConsumerCancelledError: the broker cancelled the consumer.
        OSError: the host has no address.
        ValueError: a message is not one of ours.
    """
    topology = settings.topology
    endpoint = settings.endpoints[0]

    def on_message(channel: BlockingChannel, method: Basic.Deliver, _: BasicProperties, body: bytes) -> None:
        handler(decode(body))
        channel.basic_ack(cast(int, method.delivery_tag))

    parameters = pika.ConnectionParameters(
        host=endpoint.host,
        port=endpoint.port,
        virtual_host=settings.vhost,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        heartbeat=settings.heartbeat,
    )
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.exchange_declare(topology.exchange, "direct", durable=True)
        channel.queue_declare(topology.queue, durable=True, arguments=topology.queue_arguments)
        channel.queue_bind(topology.queue, topology.exchange, topology.routing_key)
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(topology.queue, on_message, consumer_tag=consumer_tag)
        on_ready()
        channel.start_consuming()
        # It returns only when no consumer is left, and nothing here cancels one.
        raise ConsumerCancelledError(f"consumer of {topology.queue} cancelled by the broker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, which is never 0."""
    parser = options.parser("standard_consumer", "Print and acknowledge messages until the connection is lost.")
    options.add_consumer_options(parser)
    given = parser.parse_args(arguments)
    try:
        consume(
            options.settings(parser, given),
            options.print_received,
            prefetch=given.prefetch,
            consumer_tag=given.consumer_tag,
        )
    except (AMQPError, ConsumerCancelledError, OSError, ValueError) as error:
        return options.fail("standard_consumer", " ".join(describe(error).split()))
    except KeyboardInterrupt:
        return options.fail("standard_consumer", "interrupted")


if __name__ == "__main__":
    sys.exit(main())
