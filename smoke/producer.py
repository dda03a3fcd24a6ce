"""A producer that survives the loss of whatever it is connected to.

As a command: python smoke/producer.py HOST PORT CONTENT
"""

from __future__ import annotations

import heapq
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pika.channel import Channel
from pika.frame import Method
from pika.spec import PERSISTENT_DELIVERY_MODE, Basic, BasicProperties

from smoke import options
from smoke.backoff import Backoff
from smoke.history import Event, Kind, Reporter
from smoke.messages import CHECKSUM, Identity, Message, checksum, encode
from smoke.session import FatalError, Session, Settings

# How long a stop waits for confirms, in seconds, unless it is told otherwise.
GRACE = 30.0
# A broker that does not answer connection.close for so many seconds is left without.
CLOSE_TIMEOUT = 2.0
# Rounds of nacks after which a channel that has never confirmed anything is given up. RabbitMQ 3.10 refuses everything
# on a channel that was opened while the leader of the queue was dead, for seconds after there is another leader, and
# nothing on one that is opened then (measured: nacks until 5.8 s on the first, confirms from 0.3 s on the second).
REFUSALS = 3


@dataclass(slots=True)
class _Sending:
    """A message on its way, until it is confirmed.

    Attributes:
        sequence: its place in the order of publish().
        message: what is sent.
        attempt: publications so far.
        sent: time.monotonic() of the last one, seconds.
        returned: the last one came back; its basic.ack then says no more than that (RabbitMQ documentation,
            "Consumer Acknowledgements and Publisher Confirms").
    """

    sequence: int
    message: Message
    attempt: int = 0
    sent: float = 0.0
    returned: bool = False


class Producer:
    """Publishes messages until the broker has confirmed each of them.

    Whatever was not confirmed when a connection is lost is published again on the next, in order and before anything
    newer, under a new attempt. A nack or a return is a reason to wait a little and publish again. No confirm for too
    long, or nothing but nacks on a new channel, is a reason to give up the connection: a node that is cut off from its
    peers, or frozen, takes messages and says nothing. The price is duplicates, which consumers have to expect.

    Args:
        settings: where to connect, as whom, and the topology.
        observe: takes the events, from the producer's I/O thread; must not raise.
        confirmed: called with each message once it is confirmed, in the same thread; must not raise, nor wait
            for the producer.
        window: how many messages may be unconfirmed, waiting ones included, before publish() blocks.
        confirm_timeout: seconds; its clock stands still while the broker blocks the connection.
        name: the client's name in the events. The producer of its messages is called name-xxxxxxxx, unique.
        republish: False forgets what was not confirmed, to see what that costs.
        session: makes the session.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        observe: Callable[[Event], None] = lambda _: None,
        confirmed: Callable[[Message], None] = lambda _: None,
        window: int = 100,
        confirm_timeout: float = 5.0,
        name: str = "producer",
        republish: bool = True,
        session: Callable[..., Session] = Session,
    ) -> None:
        self.producer = f"{name}-{uuid.uuid4().hex[:8]}"
        self._topology = settings.topology
        self._confirmed = confirmed
        self._window = window
        self._confirm_timeout = confirm_timeout
        self._republish = republish
        self._report = Reporter(name, observe)
        self._session = session(
            settings,
            role="producer",
            report=self._report,
            on_ready=self._on_ready,
            on_lost=self._on_lost,
            on_blocked=self._on_blocked,
        )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

        # Shared between threads, under the condition.
        self._changed = threading.Condition()
        self._sequence = 0
        self._outstanding = 0
        self._stopping = False
        self._ended = False
        self._error: Exception | None = None

        # The rest belongs to the I/O thread.
        self._waiting: list[tuple[int, _Sending]] = []
        self._unconfirmed: dict[int, _Sending] = {}
        self._channel: Channel | None = None
        self._tag = 0
        self._blocked = False
        self._unblocked_at = 0.0
        self._resting = False
        self._unroutable = False
        # Rounds of nacks on a channel that has confirmed nothing yet; None once it has.
        self._refusals: int | None = 0
        self._retry = Backoff(base=0.05, cap=1.0)
        self._cancel_watch: Callable[[], None] | None = None

    def start(self) -> None:
        """Connect, and publish, in a thread of its own."""
        self._thread.start()

    def publish(self, content: str, timeout: float | None = None) -> int:
        """Take responsibility for a message, blocking while the window is full. From any thread.

        Args:
            content: of the message; its time is now.
            timeout: how long to wait for room in the window, seconds; None waits for ever.

        Returns:
            The sequence number of the message.

        Raises:
            TimeoutError: there was no room in time; the message is not taken.
            FatalError: the broker refused something that trying again does not change.
            RuntimeError: the producer was stopped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._outstanding < self._window, timeout)
            if self._error is not None:
                raise self._error
            if self._over:
                raise RuntimeError("the producer is stopped")
            if self._outstanding >= self._window:
                raise TimeoutError(f"{self._outstanding} messages unconfirmed for {timeout:g} s")
            self._outstanding += 1
            self._sequence += 1
            sending = _Sending(self._sequence, Message(content, time.time()))
            self._session.call_soon(partial(self._take, sending))
            return sending.sequence

    @property
    def unconfirmed(self) -> int:
        """How many messages were taken and are not confirmed."""
        with self._changed:
            return self._outstanding

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything is confirmed; False if it is not within so many seconds.

        Raises:
            FatalError: the broker refused something that trying again does not change.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._outstanding == 0, timeout)
            if self._error is not None:
                raise self._error
            return self._outstanding == 0

    def stop(self, grace: float = GRACE) -> int:
        """Take no more messages, wait for the confirms of those taken, close the connection.

        Args:
            grace: how long to wait for confirms, seconds.

        Returns:
            How many messages stayed unconfirmed.

        Raises:
            FatalError: the producer had ended with it.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        try:
            self.flush(grace)
        finally:
            self._session.call_soon(partial(self._session.close, within=CLOSE_TIMEOUT))
            self._thread.join()
        return self.unconfirmed

    @property
    def _over(self) -> bool:
        return self._stopping or self._ended

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._session.run()
        except Exception as raised:
            error = raised
        with self._changed:
            self._error = error
            self._ended = True
            self._changed.notify_all()
        if error is None and self.unconfirmed == 0:
            self._report(Kind.finished, Identity(self.producer, 0, 0))

    def _take(self, sending: _Sending) -> None:
        self._wait(sending)
        self._pump()

    def _wait(self, sending: _Sending) -> None:
        # By sequence, so that what has to be published again goes before anything newer.
        heapq.heappush(self._waiting, (sending.sequence, sending))

    def _identity(self, sending: _Sending) -> Identity:
        return Identity(self.producer, sending.sequence, sending.attempt)

    def _on_ready(self, channel: Channel) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(partial(self._on_answer, channel), callback=partial(self._on_confirming, channel))

    def _on_confirming(self, channel: Channel, _: object) -> None:
        if channel is self._session.channel:
            self._channel = channel
            self._tag = 0
            self._refusals = 0
            self._session.established()
            self._pump()

    def _pump(self) -> None:
        while self._waiting and self._channel is not None and not self._blocked and not self._resting:
            _, sending = heapq.heappop(self._waiting)
            sending.attempt += 1
            sending.returned = False
            sending.sent = time.monotonic()
            # The broker counts publications on a channel in confirm mode from 1.
            self._tag += 1
            self._unconfirmed[self._tag] = sending
            identity = self._identity(sending)
            body = encode(sending.message)
            self._report(Kind.publish, identity)
            self._channel.basic_publish(
                self._topology.exchange,
                self._topology.routing_key,
                body,
                BasicProperties(
                    content_type="application/json",
                    delivery_mode=PERSISTENT_DELIVERY_MODE,
                    message_id=str(identity),
                    headers={CHECKSUM: checksum(str(identity), body)},
                ),
                mandatory=True,
            )
        self._watch()

    def _on_return(self, channel: Channel, method: Basic.Return, properties: BasicProperties, _: bytes) -> None:
        if channel is not self._channel:
            return
        for sending in self._unconfirmed.values():
            identity = self._identity(sending)
            if str(identity) == properties.message_id:
                sending.returned = True
                self._report(Kind.returned, identity, detail=f"{method.reply_code} {method.reply_text}")

    def _on_answer(self, channel: Channel, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        if channel is not self._channel:
            return
        answer = frame.method
        tags = [
            tag
            for tag in self._unconfirmed
            if tag == answer.delivery_tag or (answer.multiple and tag < answer.delivery_tag)
        ]
        for tag in tags:
            sending = self._unconfirmed.pop(tag)
            if isinstance(answer, Basic.Nack):
                self._report(Kind.nack, self._identity(sending))
                if self._refusals is not None and not self._resting:
                    self._refusals += 1
                self._again(sending)
            elif sending.returned:
                self._unroutable = True
                self._again(sending)
            else:
                self._confirm(sending)

    def _confirm(self, sending: _Sending) -> None:
        self._report(Kind.confirm, self._identity(sending))
        self._session.progress()
        self._refusals = None
        self._retry.reset()
        self._confirmed(sending.message)
        self._settle()

    def _settle(self) -> None:
        with self._changed:
            self._outstanding -= 1
            self._changed.notify_all()

    def _retain(self, sending: _Sending) -> None:
        if self._republish:
            self._wait(sending)
        else:
            self._settle()

    def _again(self, sending: _Sending) -> None:
        self._retain(sending)
        if not self._resting:
            self._resting = True
            delay = 0.0 if self._refused else self._retry.next()
            self._session.call_later(delay, partial(self._on_rested, self._channel))

    @property
    def _refused(self) -> bool:
        return self._refusals is not None and self._refusals > REFUSALS

    def _on_rested(self, channel: Channel | None) -> None:
        if channel is not self._channel:
            return
        if self._refused:
            self._session.drop("nothing but nacks on this channel")
        elif self._unroutable:
            self._unroutable = False
            self._session.rebuild(partial(self._resume, channel))
        else:
            self._resume(channel)

    def _resume(self, channel: Channel | None) -> None:
        if channel is self._channel:
            self._resting = False
            self._pump()

    def _on_lost(self) -> None:
        for sending in self._unconfirmed.values():
            self._retain(sending)
        self._unconfirmed.clear()
        self._channel = None
        self._blocked = self._resting = self._unroutable = False
        self._stop_watch()

    def _on_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        if blocked:
            self._stop_watch()
        else:
            self._unblocked_at = time.monotonic()
            self._pump()

    def _watch(self) -> None:
        if self._cancel_watch is None and self._unconfirmed and not self._blocked:
            self._cancel_watch = self._session.call_later(max(0.0, self._patience()), self._on_watch)

    def _on_watch(self) -> None:
        self._cancel_watch = None
        if self._unconfirmed and self._patience() <= 0:
            self._session.drop(f"no confirm within {self._confirm_timeout:g} s")
        else:
            self._watch()

    def _patience(self) -> float:
        oldest = next(iter(self._unconfirmed.values()))
        return max(oldest.sent, self._unblocked_at) + self._confirm_timeout - time.monotonic()

    def _stop_watch(self) -> None:
        if self._cancel_watch is not None:
            self._cancel_watch()
            self._cancel_watch = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = options.parser("producer", "Publish messages until each is confirmed, whatever happens to the cluster.")
    options.add_endpoints(parser)
    options.add_history(parser)
    options.add_producer_options(parser)
    given = parser.parse_args(arguments)
    producer = Producer(
        options.settings(parser, given),
        observe=options.observer(given),
        confirmed=options.print_confirmed,
        confirm_timeout=given.confirm_timeout,
    )
    signals = options.Signals()
    begin = time.monotonic()
    deadline = begin + given.timeout
    try:
        producer.start()
        complete = all(
            _publish(producer, content, begin + number / given.rate, deadline, signals)
            for number, content in enumerate(_contents(given.content, given.count))
        )
        while not signals.received and time.monotonic() < deadline and not producer.flush(options.POLL):
            pass
        unconfirmed = producer.stop(max(0.0, min(GRACE, deadline - time.monotonic())))
    except FatalError as error:
        return options.fail("producer", str(error))
    if unconfirmed:
        return options.fail("producer", f"{unconfirmed} of the messages published were not confirmed")
    if not complete and not signals.received:
        return options.fail("producer", f"not all messages could be published within {given.timeout:g} s")
    if why := options.unprinted():
        return options.fail("producer", why)
    return 0


def _contents(content: str, count: int | None) -> Iterator[str]:
    if count is None:
        yield content
    else:
        yield from (f"{content} {number}" for number in range(1, count + 1))


def _publish(producer: Producer, content: str, due: float, deadline: float, signals: options.Signals) -> bool:
    while not signals.received and (now := time.monotonic()) < deadline:
        if now < due:
            # The pace is the user's wish, not a wait for something.
            time.sleep(min(due - now, options.POLL))
            continue
        try:
            producer.publish(content, timeout=options.POLL)
        except TimeoutError:
            continue
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
