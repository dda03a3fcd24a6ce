"""The clients whose throughput is compared: ours, and bare pika. Those of amqp-tools stand in bench/commands.py."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import PERSISTENT_DELIVERY_MODE, Basic, BasicProperties

from smoke.consumer import Consumer
from smoke.messages import Message, decode, encode
from smoke.producer import Producer
from smoke.session import Settings

# Messages of one measurement.
COUNT = 5000
# Seconds that it may take.
LIMIT = 120.0
CONTENT = "benchmark"

# Publishes or consumes COUNT messages, and returns the seconds that it took: from before it connects to after it has
# closed its connection, because that is all that can be measured of a command.
Client = Callable[[Settings], float]


class ClientError(Exception):
    """A client did not do what was asked of it."""


def produce(settings: Settings, *, window: int) -> float:
    """Publish with our producer, until every message is confirmed.

    Raises:
        ClientError: some were not confirmed.
        TimeoutError: the window was full for too long.
    """
    producer = Producer(settings, window=window)
    began = time.monotonic()
    producer.start()
    try:
        for _ in range(COUNT):
            producer.publish(CONTENT, timeout=_left(began))
    finally:
        unconfirmed = producer.stop(_left(began))
    seconds = time.monotonic() - began
    if unconfirmed:
        raise ClientError(f"{unconfirmed} messages were not confirmed within {LIMIT:g} s")
    return seconds


def consume(settings: Settings, *, prefetch: int) -> float:
    """Consume with our consumer, until every message is acknowledged.

    Raises:
        ClientError: not all arrived.
    """
    arrived = itertools.count(1)
    done = threading.Event()

    def handle(_: Message) -> None:
        if next(arrived) == COUNT:
            done.set()

    consumer = Consumer(settings, handle, prefetch=prefetch)
    began = time.monotonic()
    consumer.start()
    complete = done.wait(LIMIT)
    consumer.stop()
    seconds = time.monotonic() - began
    if not complete:
        raise ClientError(f"not all messages arrived within {LIMIT:g} s")
    return seconds


def publish_with_pika(settings: Settings, *, confirms: bool) -> float:
    """Publish the same with pika's BlockingConnection, which waits for each confirm before the next message.

    Without confirms it ends when the broker has closed the channel, and so has read every message; more was not
    promised.

    Raises:
        AMQPError: the broker refused it.
        ClientError: it took too long.
    """
    topology = settings.topology
    properties = BasicProperties(content_type="application/json", delivery_mode=PERSISTENT_DELIVERY_MODE)
    began = time.monotonic()
    with connect(settings) as connection:
        channel = connection.channel()
        if confirms:
            channel.confirm_delivery()
        for _ in range(COUNT):
            body = encode(Message(CONTENT, time.time()))
            channel.basic_publish(topology.exchange, topology.routing_key, body, properties, mandatory=confirms)
            if not _left(began):
                raise ClientError(f"not all messages were published within {LIMIT:g} s")
        channel.close()
    return time.monotonic() - began


def consume_with_pika(settings: Settings, *, prefetch: int) -> float:
    """Consume with pika's BlockingConnection, and acknowledge each message.

    Raises:
        AMQPError: the broker refused it.
        ClientError: not all arrived.
    """
    arrived = 0

    def handle(channel: BlockingChannel, method: Basic.Deliver, _: BasicProperties, body: bytes) -> None:
        nonlocal arrived
        decode(body)
        channel.basic_ack(cast(int, method.delivery_tag))
        arrived += 1
        if arrived == COUNT:
            channel.stop_consuming()

    began = time.monotonic()
    with connect(settings) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(settings.topology.queue, handle)
        connection.call_later(LIMIT, channel.stop_consuming)
        channel.start_consuming()
    seconds = time.monotonic() - began
    if arrived < COUNT:
        raise ClientError(f"only {arrived} messages arrived within {LIMIT:g} s")
    return seconds


PUBLISHERS: dict[str, Client] = {
    "`smoke/producer.py`, window 100 (its default): confirmed": partial(produce, window=100),
    "`smoke/producer.py`, window 1000: confirmed": partial(produce, window=1000),
    "pika's `BlockingConnection`, confirms: confirmed": partial(publish_with_pika, confirms=True),
    "pika's `BlockingConnection`, no confirms: sent": partial(publish_with_pika, confirms=False),
}
CONSUMERS: dict[str, Client] = {
    "`smoke/consumer.py`, prefetch 20 (its default)": partial(consume, prefetch=20),
    "`smoke/consumer.py`, prefetch 200": partial(consume, prefetch=200),
    "pika's `BlockingConnection`, prefetch 20": partial(consume_with_pika, prefetch=20),
    "pika's `BlockingConnection`, prefetch 200": partial(consume_with_pika, prefetch=200),
}


def connect(settings: Settings) -> pika.BlockingConnection:
    """Connect to the first endpoint.

    Raises:
        AMQPError: it refuses.
    """
    endpoint = settings.endpoints[0]
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            endpoint.host,
            endpoint.port,
            settings.vhost,
            pika.PlainCredentials(settings.user, settings.password),
            heartbeat=settings.heartbeat,
            blocked_connection_timeout=LIMIT,
        )
    )


def _left(began: float) -> float:
    return max(0.0, began + LIMIT - time.monotonic())
