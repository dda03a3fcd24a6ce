"""A consumer that survives the loss of whatever it is connected to.

As a command: python smoke/consumer.py HOST PORT
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from pika import spec
from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from smoke import options
from smoke.history import Event, Kind, Reporter
from smoke.messages import CHECKSUM, Identity, Message, checksum, decode
from smoke.session import FatalError, Session, Settings

# How long a stop waits for what is in hand, in seconds, unless it is told otherwise.
GRACE = 30.0
# A broker that does not answer connection.close for so many seconds is left without.
CLOSE_TIMEOUT = 2.0
# So many questions to the queue in a row, without the right answer or a delivery in between, end a connection: one
# alone may meet an election.
QUESTIONS = 2


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A message in hand, with the only channel on which its tag means anything."""

    channel: Channel
    tag: int
    message: Message
    identity: Identity | None


class Consumer:
    """Consumes a queue, acknowledging each message after its handler has returned: at least once, never at most once.

    The handler runs in one thread of its own, so that a slow one does not starve heartbeats. A message still waiting
    for it when the connection is lost is not handled, since the broker delivers it again.

    A handler that raises gets the message rejected and requeued, and the consumer goes on. On a quorum queue the
    delivery limit (20 by default since RabbitMQ 4.0) ends that; basic.reject is used because RabbitMQ 4.3 does not
    count basic.nack. A classic queue has no such limit. A message that cannot be decoded, or is not what our producer
    sent, is rejected for good.

    Silence proves nothing: a queue whose leader is out of reach of the consumer's node looks like an empty one, and
    with RabbitMQ 4.3 nobody says so. So the queue is asked all along whether it has a consumer (queue.declare-ok,
    AMQP 0-9-1). RabbitMQ says 0 for a quorum queue whose leader does not answer its node.

    Args:
        settings: where to connect, as whom, and the topology.
        handler: processes one message; called in the consumer's worker thread.
        observe: takes the events, from the consumer's I/O thread; must not raise.
        prefetch: how many messages the broker may hand out ahead of acknowledgements (AMQP 0-9-1, basic.qos).
        consumer_tag: identifies the consumer on its channel.
        ask_interval: seconds between two questions to the queue.
        name: the client's name in the events.
        session: makes the session.
    """

    def __init__(
        self,
        settings: Settings,
        handler: Callable[[Message], None],
        *,
        observe: Callable[[Event], None] = lambda _: None,
        prefetch: int = 20,
        consumer_tag: str = "cluster_test",
        ask_interval: float = 2.0,
        name: str = "consumer",
        session: Callable[..., Session] = Session,
    ) -> None:
        self._queue = settings.topology.queue
        self._handler = handler
        self._prefetch = prefetch
        self._consumer_tag = consumer_tag
        self._ask_interval = ask_interval
        self._report = Reporter(name, observe)
        self._session = session(
            settings, role="consumer", report=self._report, on_ready=self._on_ready, on_lost=self._on_lost
        )
        self._deliveries: queue.SimpleQueue[_Delivery | None] = queue.SimpleQueue()
        self._in_hand = 0
        self._asked = 0
        self._consuming = False
        self._stopping = False
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._error: Exception | None = None

    def run(self) -> None:
        """Consume in this thread until request_stop() is called from another.

        Raises:
            FatalError: the broker refused something that trying again does not change.
        """
        worker = threading.Thread(target=self._work, name="handler", daemon=True)
        worker.start()
        try:
            self._session.run()
        finally:
            self._deliveries.put(None)
            worker.join(max(0.0, self._deadline - time.monotonic()) if self._stopping else GRACE)
        if self._in_hand == 0:
            self._report(Kind.finished)

    def start(self) -> None:
        """Consume in a thread of its own."""
        self._thread.start()

    def request_stop(self, grace: float = GRACE) -> None:
        """Ask for the end that stop() describes, and return at once. From any thread, but not a signal handler."""
        self._session.call_soon(partial(self._begin_stop, grace))

    def stop(self, grace: float = GRACE) -> bool:
        """End what start() began: cancel, process and acknowledge what was delivered, close the connection.

        What is on its way while it cancels goes back to the queue, and comes to another consumer with the redelivered
        flag: pika gives it back (Channel.basic_cancel), and so does RabbitMQ (rabbitmq-server#3729).

        Args:
            grace: seconds after which what is still in hand is left to the broker, to be delivered again.

        Returns:
            Whether everything in hand was acknowledged.

        Raises:
            FatalError: the consumer had ended with it.
        """
        self.request_stop(grace)
        self.join()
        return self._in_hand == 0

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread of start() to end; False if it has not within so many seconds.

        Raises:
            FatalError: the consumer has ended with it.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _run(self) -> None:
        try:
            self.run()
        except Exception as error:
            self._error = error

    def _on_ready(self, channel: Channel) -> None:
        channel.add_on_cancel_callback(partial(self._on_cancelled, channel))
        channel.basic_qos(prefetch_count=self._prefetch, callback=partial(self._consume, channel))

    def _consume(self, channel: Channel, _: object) -> None:
        if channel is self._session.channel:
            channel.basic_consume(
                self._queue,
                self._on_delivery,
                consumer_tag=self._consumer_tag,
                callback=partial(self._on_consuming, channel),
            )

    def _on_consuming(self, channel: Channel, _: object) -> None:
        if channel is self._session.channel:
            self._consuming = True
            self._session.established()
            self._asked = 0
            self._ask_later(channel)

    def _ask_later(self, channel: Channel) -> None:
        self._session.call_later(self._ask_interval, partial(self._ask, channel))

    def _ask(self, channel: Channel) -> None:
        if channel is not self._session.channel or not self._consuming:
            return
        if self._asked == QUESTIONS:
            self._session.drop(f"the queue knows of no consumer for {QUESTIONS * self._ask_interval:g} s")
            return
        self._asked += 1
        channel.queue_declare(self._queue, passive=True, callback=self._on_answer)
        self._ask_later(channel)

    def _on_answer(self, answer: Method[spec.Queue.DeclareOk]) -> None:
        if answer.method.consumer_count:
            self._asked = 0

    def _on_delivery(self, channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        if channel is not self._session.channel:
            return
        tag = cast(int, method.delivery_tag)
        self._asked = 0
        self._session.progress()
        identity = Identity.parse(properties.message_id)
        headers = properties.headers or {}
        # Only our own messages have an identity, and they have a checksum, too.
        corrupt = identity is not None and headers.get(CHECKSUM) != checksum(str(identity), body)
        self._report(
            Kind.delivery,
            identity,
            redelivered=method.redelivered,
            delivery_count=_delivery_count(headers),
            dead_lettered=_dead_lettered(headers),
            corrupt=corrupt,
            where=self._queue,
        )
        try:
            if corrupt:
                raise ValueError("not what was published: the checksum differs")
            message = decode(body)
        except ValueError as error:
            channel.basic_reject(tag, requeue=False)
            self._report(Kind.rejected, identity, detail=str(error))
            return
        self._in_hand += 1
        self._deliveries.put(_Delivery(channel, tag, message, identity))

    def _work(self) -> None:
        while (delivery := self._deliveries.get()) is not None:
            error: BaseException | None = None
            if delivery.channel is self._session.channel:
                try:
                    self._handler(delivery.message)
                except BaseException as raised:
                    # sys.exit() in a handler, too: it would end this thread, and nobody would notice.
                    error = raised
            self._session.call_soon(partial(self._settle, delivery, error))

    def _settle(self, delivery: _Delivery, error: BaseException | None) -> None:
        self._in_hand -= 1
        if delivery.channel is not self._session.channel:
            self._report(Kind.stale, delivery.identity)
        elif error is not None:
            delivery.channel.basic_reject(delivery.tag, requeue=True)
            self._report(Kind.requeued, delivery.identity, detail=f"the handler failed: {error!r}")
        else:
            delivery.channel.basic_ack(delivery.tag)
            self._report(Kind.ack, delivery.identity)
        self._close_if_done()

    def _on_cancelled(self, channel: Channel, _: object) -> None:
        # The queue, or the node that held it, is gone (RabbitMQ documentation, "Consumer Cancel Notification").
        if channel is self._session.channel:
            self._report(Kind.cancelled, where=self._queue)
            self._session.drop("consumer cancelled by the broker")

    def _on_lost(self) -> None:
        self._consuming = False
        if self._stopping:
            self._session.close(within=0)

    def _begin_stop(self, grace: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._deadline = time.monotonic() + grace
        self._session.call_later(grace, partial(self._session.close, within=0))
        channel = self._session.channel
        if self._consuming and channel is not None:
            # Asked for its answer alone, which comes after all that was delivered before: what pika reads once it has
            # cancelled, it gives back.
            channel.basic_qos(prefetch_count=self._prefetch, callback=partial(self._cancel, channel))
        else:
            self._close_if_done()

    def _cancel(self, channel: Channel, _: object) -> None:
        if channel is self._session.channel:
            channel.basic_cancel(self._consumer_tag, callback=self._on_cancel_ok)

    def _on_cancel_ok(self, _: object) -> None:
        self._consuming = False
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._stopping and not self._consuming and self._in_hand == 0:
            self._session.close(within=CLOSE_TIMEOUT)


def _delivery_count(headers: Mapping[str, object]) -> int:
    # Quorum queues have it, from the second delivery on.
    count = headers.get("x-delivery-count")
    return count if isinstance(count, int) else 0


def _dead_lettered(headers: Mapping[str, object]) -> str:
    queue = headers.get("x-first-death-queue")
    return queue if isinstance(queue, str) else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = options.parser("consumer", "Print and acknowledge messages, whatever happens to the cluster.")
    options.add_endpoints(parser)
    options.add_history(parser)
    options.add_consumer_options(parser)
    given = parser.parse_args(arguments)
    consumer = Consumer(
        options.settings(parser, given),
        options.print_received,
        observe=options.observer(given),
        prefetch=given.prefetch,
        consumer_tag=given.consumer_tag,
    )
    signals = options.Signals()
    try:
        consumer.start()
        while not consumer.join(options.POLL):
            if signals.received and not consumer.stop():
                return options.fail("consumer", "some messages were not acknowledged; the broker delivers them again")
    except FatalError as error:
        return options.fail("consumer", str(error))
    if why := options.unprinted():
        return options.fail("consumer", why)
    return 0


if __name__ == "__main__":
    sys.exit(main())
