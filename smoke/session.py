"""One AMQP 0-9-1 connection and channel at a time, found again after every loss.

A failover is treated as a connection to an unrelated broker: whatever is lost (the connection, the channel, the
consumer), everything is dropped, the next endpoint is tried, and the whole topology is declared again. There is one
way to recover, so it is the one that is tested.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pika
from pika import spec
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker
from pika.frame import Method

from smoke.backoff import Backoff
from smoke.history import Kind, Reporter
from smoke.topology import Topology, declare


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an AMQP listener, or a balancer in front of some, is reached."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client needs to know about its brokers.

    Attributes:
        endpoints: at least one; tried in random order first, then in turn.
        user: AMQP user.
        password: of that user.
        vhost: virtual host.
        topology: declared on every connection.
        heartbeat: AMQP heartbeat, whole seconds. pika gives up after this plus 5 s of silence.
        connect_timeout: for name lookup, TCP and the AMQP handshake together, seconds.
        setup_timeout: for channel, topology and consumer together, seconds. A node that is cut off from its peers
            completes handshakes but may not answer what follows.
    """

    endpoints: tuple[Endpoint, ...]
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    topology: Topology = field(default_factory=Topology)
    heartbeat: int = 10
    connect_timeout: float = 5.0
    setup_timeout: float = 10.0


class FatalError(Exception):
    """The broker refused something that trying again does not change. The message is one line for an operator."""


class Session:
    """Keeps a channel with a declared topology, for as long as it takes.

    All methods but call_soon() belong to the I/O thread, the one that is in run().

    Args:
        settings: where to connect, as whom.
        role: what the connection is for; operators see it in the connection's name.
        report: takes the events of the connection.
        on_ready: called with each new channel once the topology is declared. The client completes the setup by
            calling established().
        on_lost: called when a channel, or the attempt to get one, is gone; no callback of that channel counts from
            then on.
        on_blocked: called with True and False as the broker stops and resumes reading from this connection.
        backoff: says how long to wait before the next try.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        role: str,
        report: Reporter,
        on_ready: Callable[[Channel], None],
        on_lost: Callable[[], None],
        on_blocked: Callable[[bool], None] = lambda _: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._settings = settings
        self._name = f"rabbitproof {role} {settings.topology.queue} {os.getpid()}"
        self._connection_name = ""
        self._report = report
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._on_blocked = on_blocked

        self._loop = IOLoop()
        self._backoff = backoff or Backoff()
        self._endpoints = itertools.cycle(random.sample(settings.endpoints, len(settings.endpoints)))
        self._endpoint = settings.endpoints[0]
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None
        self._aborted: set[pika.SelectConnection] = set()
        self._cancel_deadline: Callable[[], None] = lambda: None
        self._declaring = False
        self._established = False
        self._close_method = ""
        self._closing = False
        self._finished = False
        self._fatal: FatalError | None = None

    @property
    def channel(self) -> Channel | None:
        """The current channel. A delivery or a confirm that came on any other is void."""
        return self._channel

    def run(self) -> None:
        """Connect, and keep connected until close().

        Raises:
            FatalError: the broker refused credentials, virtual host, permissions, or the topology as declared.
        """
        self.call_soon(self._connect)
        try:
            self._loop.start()
        finally:
            self._loop.close()
        if self._fatal is not None:
            raise self._fatal

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run a callback in the I/O thread. From any thread; without effect once run() has returned."""
        self._loop.add_callback_threadsafe(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Run a callback after a delay in seconds, unless the function that is returned is called before."""
        return partial(self._loop.remove_timeout, self._loop.call_later(delay, callback))

    def established(self) -> None:
        """Say that the setup is complete: the client consumes, or may publish."""
        self._cancel_deadline()
        self._established = True
        self._report(Kind.ready, where=str(self._endpoint))

    def progress(self) -> None:
        """Say that the broker does its work (a confirm, a delivery), so that the next loss is tried again at once.

        A mere connection is no proof: a balancer without a healthy backend accepts connections, too.
        """
        self._backoff.reset()

    def rebuild(self, on_done: Callable[[], None]) -> None:
        """Declare the whole topology again on the current channel."""
        self._arm_deadline(self._settings.setup_timeout, "topology not declared")

        def done() -> None:
            self._cancel_deadline()
            on_done()

        self._declare(done)

    def drop(self, reason: str) -> None:
        """Give the connection up without a word to the broker, and begin again."""
        if self._connection is not None:
            self._abort(self._connection)
            self._lost(reason)

    def close(self, within: float) -> None:
        """End run(), closing the connection properly if the broker answers within so many seconds."""
        if self._closing:
            return
        self._closing = True
        if self._connection is None:
            self._finish()
        elif self._established and self._connection.is_open and within > 0:
            self._connection.close()
            self.call_later(within, self._abandon)
        else:
            self._abandon()

    def _connect(self) -> None:
        if self._closing:
            return
        self._endpoint = next(self._endpoints)
        self._close_method = ""
        # Another one each time, so that whoever asks the brokers about this connection is not told of the one before.
        self._connection_name = f"{self._name} {uuid.uuid4().hex[:8]}"
        self._report(Kind.connecting, where=str(self._endpoint))
        settings = self._settings
        connection = pika.SelectConnection(
            pika.ConnectionParameters(
                host=self._endpoint.host,
                port=self._endpoint.port,
                virtual_host=settings.vhost,
                credentials=pika.PlainCredentials(settings.user, settings.password),
                heartbeat=settings.heartbeat,
                socket_timeout=None,
                stack_timeout=None,
                client_properties={"connection_name": self._connection_name},
            ),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=self._loop,
        )
        # pika replaces what the broker said during the handshake by a guess from the state it was in (a connection
        # that a balancer cuts early becomes a "probable authentication error"), so the method is read here.
        connection.callbacks.add(0, spec.Connection.Close, partial(self._on_close_method, connection))
        self._connection = connection
        self._arm_deadline(settings.connect_timeout, "no AMQP connection")

    def _on_close_method(self, connection: pika.SelectConnection, frame: Method[spec.Connection.Close]) -> None:
        if connection is not self._connection:
            return
        code, text = frame.method.reply_code, frame.method.reply_text
        self._close_method = f"closed by the broker: {code} {text}"
        if _is_refusal(code, text):
            self._fatal = FatalError(
                _one_line(
                    f"{self._endpoint} refuses user {self._settings.user!r} in vhost {self._settings.vhost!r}: {text}"
                )
            )

    def _on_open(self, connection: pika.SelectConnection) -> None:
        if connection is not self._connection:
            return
        self._report(Kind.connected, where=str(self._endpoint), detail=self._connection_name)
        connection.add_on_connection_blocked_callback(self._on_connection_blocked)
        connection.add_on_connection_unblocked_callback(self._on_connection_unblocked)
        self._arm_deadline(self._settings.setup_timeout, "not set up")
        self._channel = connection.channel(on_open_callback=self._on_channel_open)
        self._channel.add_on_close_callback(self._on_channel_close)

    def _on_channel_open(self, channel: Channel) -> None:
        if channel is self._channel:
            self._declare(partial(self._on_ready, channel))

    def _declare(self, on_done: Callable[[], None]) -> None:
        channel = self._channel
        if channel is None:
            return
        self._declaring = True

        def done() -> None:
            if channel is self._channel:
                self._declaring = False
                on_done()

        declare(channel, self._settings.topology, done)

    def _on_channel_close(self, channel: Channel, reason: Exception) -> None:
        # Any other reason means that the connection is closing, which is reported separately.
        if channel is not self._channel or not isinstance(reason, ChannelClosedByBroker):
            return
        text = f"channel closed by the broker: {reason.reply_code} {reason.reply_text}"
        if reason.reply_code == spec.ACCESS_REFUSED or (
            reason.reply_code == spec.PRECONDITION_FAILED and self._declaring
        ):
            self._fatal = FatalError(_one_line(f"{self._endpoint}: {reason.reply_text}"))
        self.drop(text)

    def _on_connection_blocked(self, connection: pika.SelectConnection, frame: Method[spec.Connection.Blocked]) -> None:
        if connection is self._connection:
            self._report(Kind.blocked, detail=str(frame.method.reason))
            self._on_blocked(True)

    def _on_connection_unblocked(self, connection: pika.SelectConnection, _: object) -> None:
        if connection is self._connection:
            self._report(Kind.unblocked)
            self._on_blocked(False)

    def _on_end(self, connection: pika.SelectConnection, error: BaseException) -> None:
        if connection in self._aborted:
            self._aborted.discard(connection)
            if self._finished:
                self._finish()
        elif self._closing:
            self._connection = self._channel = None
            self._finish()
        else:
            self._lost(self._close_method or describe(error))

    def _lost(self, reason: str) -> None:
        self._connection = self._channel = None
        self._declaring = self._established = False
        self._cancel_deadline()
        if self._fatal is None:
            self._report(Kind.lost, where=str(self._endpoint), detail=_one_line(reason))
        self._on_lost()
        if self._closing or self._fatal is not None:
            self._finish()
            return
        delay = self._backoff.next()
        self._report(Kind.backoff, detail=f"{delay:.2f} s")
        self.call_later(delay, self._connect)

    def _arm_deadline(self, timeout: float, what: str) -> None:
        self._cancel_deadline()
        self._cancel_deadline = self.call_later(timeout, partial(self.drop, f"{what} within {timeout:g} s"))

    def _abandon(self) -> None:
        if self._connection is not None:
            self._abort(self._connection)
            self._connection = self._channel = None
            self._finish()

    def _abort(self, connection: pika.SelectConnection) -> None:
        self._aborted.add(connection)
        # Connection.close() waits for answers, which a frozen broker does not give, and during the handshake it trips
        # over an assertion of pika's own workflow. This is how pika itself gives up on a missed heartbeat.
        connection._terminate_stream(ConnectionAbortedError("given up"))  # type: ignore[attr-defined]

    def _finish(self) -> None:
        self._closing = self._finished = True
        # pika closes an aborted socket in a later turn of the loop.
        if not self._aborted:
            self._loop.stop()


def _is_refusal(code: int | None, text: str) -> bool:
    """Tell whether a connection.close is the broker's last word (RabbitMQ, rabbit_reader and rabbit_access_control).

    530 also says that a connection limit is reached, or that a backend failed just now; both may pass.
    """
    if code == spec.ACCESS_REFUSED:
        return True
    return code == spec.NOT_ALLOWED and bool(re.search(r"vhost .* not found|refused for user '.*'$", text))


def describe(error: BaseException) -> str:
    """Name the innermost cause of an error of pika's, which wraps a refused TCP connection three times."""
    while True:
        if isinstance(error, AMQPConnectionWorkflowFailed):
            error = error.exceptions[-1]
        elif isinstance(inner := getattr(error, "exception", None), BaseException) or (
            error.args and isinstance(inner := error.args[0], BaseException)
        ):
            error = inner
        else:
            return str(error) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
