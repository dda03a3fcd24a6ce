"""Clients that do what many applications do wrong, for the suite to find out: a judge that acquits them is none.

Each is ours but for one thing, which is done to the channel or the session that it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pika import spec
from pika.channel import Channel
from pika.frame import Method

from smoke.backoff import Backoff
from smoke.consumer import Consumer
from smoke.history import Event
from smoke.messages import Message
from smoke.producer import Producer
from smoke.session import Session, Settings
from smoke.stream import RATE, Clients

Observe = Callable[[Event], None]

# Seconds between two tries of a client that knows no backoff.
STORM = 0.01


def _slowly(_: Message) -> None:
    """Work longer at a message than the next one takes to arrive, so that more and more are in hand or in the queue."""
    time.sleep(2 / RATE)


def _tampered(tamper: Callable[[Channel], None]) -> Callable[..., Session]:
    """Return what makes sessions whose channels are tampered with before the client gets them."""

    def make(settings: Settings, *, on_ready: Callable[[Channel], None], **rest: Any) -> Session:
        def ready(channel: Channel) -> None:
            tamper(channel)
            on_ready(channel)

        return Session(settings, on_ready=ready, **rest)

    return make


def _replace(channel: Channel, **methods: Callable[..., object]) -> None:
    vars(channel).update(methods)


def _ignore(*_: object, **__: object) -> None:
    pass


def _without_acknowledgement(channel: Channel) -> None:
    _replace(
        channel,
        basic_consume=partial(channel.basic_consume, auto_ack=True),
        basic_ack=_ignore,
        basic_reject=_ignore,
    )


def _without_confirms(channel: Channel) -> None:
    publish = channel.basic_publish
    published = 0
    answered: Callable[[Method[spec.Basic.Ack]], object] = _ignore

    def confirm_delivery(answer: Callable[[Method[spec.Basic.Ack]], object], callback: Callable[..., object]) -> None:
        nonlocal answered
        answered = answer
        callback(None)

    def basic_publish(*arguments: Any, **options: Any) -> None:
        nonlocal published
        publish(*arguments, **options)
        published += 1
        answered(Method(channel.channel_number, spec.Basic.Ack(published)))

    _replace(channel, confirm_delivery=confirm_delivery, basic_publish=basic_publish)


def _with_transient_messages(channel: Channel) -> None:
    publish = channel.basic_publish

    def basic_publish(
        exchange: str, routing_key: str, body: bytes, properties: spec.BasicProperties, *, mandatory: bool
    ) -> None:
        properties.delivery_mode = spec.TRANSIENT_DELIVERY_MODE
        publish(exchange, routing_key, body, properties, mandatory=mandatory)

    _replace(channel, basic_publish=basic_publish)


def _waiting_for_ever(channel: Channel) -> None:
    def queue_declare(queue: str, *, callback: Callable[[Method[spec.Queue.DeclareOk]], object], **_: object) -> None:
        callback(Method(channel.channel_number, spec.Queue.DeclareOk(queue, message_count=0, consumer_count=1)))

    _replace(channel, add_on_cancel_callback=_ignore, queue_declare=queue_declare)


def _storming(settings: Settings, **rest: Any) -> Session:
    return Session(settings, backoff=Backoff(uniform=lambda *_: STORM), **rest)


def _consumer(
    settings: Settings,
    observe: Observe,
    *,
    handler: Callable[[Message], None] = _ignore,
    session: Callable[..., Session] = Session,
) -> Consumer:
    return Consumer(settings, handler, observe=observe, session=session)


def _producer(
    settings: Settings, observe: Observe, *, republish: bool = True, session: Callable[..., Session] = Session
) -> Producer:
    return Producer(settings, observe=observe, republish=republish, session=session)


# What the broken ones below do right, for comparison: the same slow work, with acknowledgements.
SLOW = Clients(consumer=partial(_consumer, handler=_slowly))

# The broker forgets a message as it sends it; what the consumer had in hand when its connection went is gone.
AUTO_ACK = Clients(consumer=partial(_consumer, handler=_slowly, session=_tampered(_without_acknowledgement)))
# A lost connection is taken for the end of the job.
NO_REPUBLISH = Clients(producer=partial(_producer, republish=False))
# A message is taken for safe once it is handed to the operating system.
NO_CONFIRMS = Clients(producer=partial(_producer, session=_tampered(_without_confirms)))
# To be used with a classic queue: what its only member has in memory dies with it.
TRANSIENT = Clients(producer=partial(_producer, session=_tampered(_with_transient_messages)), consumer=SLOW.consumer)
# To be used with a classic queue: when its node goes, the consumer is told, and waits for ever without asking.
NO_CANCEL = Clients(consumer=partial(_consumer, session=_tampered(_waiting_for_ever)))
# A hundred tries a second, in step with all others.
STORMING = Clients(consumer=partial(_consumer, session=_storming), producer=partial(_producer, session=_storming))
