"""A TCP server that speaks AMQP 0-9-1 as its scripts say: one script for each connection, in order of arrival."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from pika import amqp_object, frame, spec

from smoke.consumer import Consumer
from smoke.history import Event, History, Kind
from smoke.messages import CHECKSUM, Message, checksum, encode
from smoke.producer import Producer
from smoke.session import Endpoint, Settings

# How long anything that should happen may take, in seconds.
PATIENCE = 5.0

M = TypeVar("M", bound=amqp_object.Method)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition, or fail saying what was still missing."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        # Between two looks at the condition; nothing is decided by it.
        time.sleep(0.002)


@dataclass(frozen=True)
class Published:
    """A message as the peer received it."""

    tag: int
    message_id: str
    body: bytes
    method: spec.Basic.Publish
    properties: spec.BasicProperties


class Link:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""
        self._published = 0
        self._delivered = 0
        self.connection_name = ""
        self.declared: list[amqp_object.Method] = []

    def read(self, timeout: float = PATIENCE) -> frame.Frame | frame.ProtocolHeader:
        deadline = time.monotonic() + timeout
        while True:
            consumed, value = frame.decode_frame(self._buffer)
            if value is not None:
                self._buffer = self._buffer[consumed:]
                return value
            ready, _, _ = select.select([self._sock], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the client sent nothing for {timeout:g} s"
            data = self._sock.recv(65536)
            if not data:
                raise EOFError("the client closed the connection")
            self._buffer += data

    def expect(self, kind: type[M]) -> M:
        """Read the next method, which must be of this kind."""
        value = self.read()
        while isinstance(value, frame.Heartbeat):
            value = self.read()
        assert isinstance(value, frame.Method), f"expected {kind.__name__}, got {value}"
        assert isinstance(value.method, kind), f"expected {kind.__name__}, got {value.method}"
        return value.method

    def expect_heartbeat(self) -> None:
        assert isinstance(self.read(), frame.Heartbeat)

    def expect_silence(self, seconds: float = 0.15) -> None:
        """Nothing but heartbeats arrives, for a while."""
        ready, _, _ = select.select([self._sock], [], [], seconds)
        assert not ready, f"expected silence, got {self.read()}"

    def expect_end(self) -> None:
        """The client gives up the connection, whatever it had still to say."""
        try:
            while True:
                self.read()
        except (EOFError, ConnectionResetError):
            pass

    def send(self, *methods: amqp_object.Method, channel: int = 1) -> None:
        """Send methods in one segment, so that the client reads them in one go."""
        self._sock.sendall(b"".join(frame.Method(channel, method).marshal() for method in methods))

    def accept(self) -> None:
        """The handshake, up to connection.open-ok."""
        self.start()
        self.expect(spec.Connection.StartOk)
        self.tune()
        self.expect(spec.Connection.Open)
        self.send(spec.Connection.OpenOk(), channel=0)

    def start(self) -> None:
        assert isinstance(self.read(), frame.ProtocolHeader)
        capabilities = dict.fromkeys(("publisher_confirms", "basic.nack", "consumer_cancel_notify"), True)
        self.send(spec.Connection.Start(server_properties={"capabilities": capabilities}), channel=0)

    def tune(self) -> None:
        self.send(spec.Connection.Tune(channel_max=2047, frame_max=131072, heartbeat=60), channel=0)
        self.expect(spec.Connection.TuneOk)

    def open_channel(self) -> None:
        self.expect(spec.Channel.Open)
        self.send(spec.Channel.OpenOk())

    def topology(self) -> None:
        exchange = self.expect(spec.Exchange.Declare)
        self.send(spec.Exchange.DeclareOk())
        queue = self.expect(spec.Queue.Declare)
        self.send(spec.Queue.DeclareOk(queue=queue.queue, message_count=0, consumer_count=0))
        bind = self.expect(spec.Queue.Bind)
        self.send(spec.Queue.BindOk())
        self.declared = [exchange, queue, bind]

    def serve_consumer(self) -> None:
        """Everything up to basic.consume-ok."""
        self.accept()
        self.open_channel()
        self.topology()
        self.expect(spec.Basic.Qos)
        self.send(spec.Basic.QosOk())
        self.send(spec.Basic.ConsumeOk(consumer_tag=self.expect(spec.Basic.Consume).consumer_tag))

    def serve_producer(self) -> None:
        """Everything up to confirm.select-ok."""
        self.accept()
        self.open_channel()
        self.topology()
        self.expect(spec.Confirm.Select)
        self.send(spec.Confirm.SelectOk())

    def deliver(
        self,
        body: bytes | str,
        *,
        message_id: str | None = None,
        redelivered: bool = False,
        tag: int | None = None,
        headers: Mapping[str, str | int | None] | None = None,
    ) -> int:
        """Deliver a message: bytes as they are, a string as the content of a proper one. Returns its tag.

        The headers come in addition to the checksum of a message that has an identity.
        """
        if isinstance(body, str):
            body = encode(Message(body, 1.5))
        self._delivered = tag if tag is not None else self._delivered + 1
        deliver = spec.Basic.Deliver("cluster_test", self._delivered, redelivered, "cluster_test", "cluster_test")
        carried: dict[str, str | int | None] = {CHECKSUM: checksum(message_id, body)} if message_id else {}
        carried.update(headers or {})
        properties = spec.BasicProperties(message_id=message_id, headers=dict(carried))
        self._send_content(deliver, properties, body)
        return self._delivered

    def receive(self) -> Published:
        """Receive one published message."""
        return self._content(self.expect(spec.Basic.Publish))

    def confirm_until_close(self) -> None:
        """Confirm whatever is published, until the client says goodbye."""
        while True:
            method = self.expect(amqp_object.Method)
            if isinstance(method, spec.Channel.Close):
                break
            assert isinstance(method, spec.Basic.Publish), f"expected Basic.Publish, got {method}"
            self.ack(self._content(method))
        self.send(spec.Channel.CloseOk())
        self.expect(spec.Connection.Close)
        self.send(spec.Connection.CloseOk(), channel=0)

    def _content(self, method: spec.Basic.Publish) -> Published:
        header = self.read()
        assert isinstance(header, frame.Header)
        body = self.read()
        assert isinstance(body, frame.Body)
        self._published += 1
        return Published(self._published, header.properties.message_id or "", body.fragment, method, header.properties)

    def return_(self, message: Published) -> None:
        """Say that no queue takes a message."""
        self._send_content(
            spec.Basic.Return(312, "NO_ROUTE", "cluster_test", "cluster_test"), message.properties, message.body
        )

    def ack(self, message: Published, *, multiple: bool = False) -> None:
        self.send(spec.Basic.Ack(message.tag, multiple))

    def serve_close(self, *, cancel: bool = False) -> None:
        """A proper farewell of the client."""
        if cancel:
            self.serve_cancel()
        self.expect(spec.Channel.Close)
        self.send(spec.Channel.CloseOk())
        self.expect(spec.Connection.Close)
        self.send(spec.Connection.CloseOk(), channel=0)

    def serve_farewell(self) -> None:
        """What a consumer asks before it cancels, for the sake of the answer's place behind all deliveries."""
        self.expect(spec.Basic.Qos)
        self.send(spec.Basic.QosOk())

    def serve_cancel(self) -> None:
        self.serve_farewell()
        self.send(spec.Basic.CancelOk(self.expect(spec.Basic.Cancel).consumer_tag))

    def refuse(self, code: int, text: str) -> None:
        """Close the connection as a broker does, with a reason."""
        self.send(spec.Connection.Close(code, text, 0, 0), channel=0)
        self.expect_end()

    def close_channel(self, code: int, text: str) -> None:
        self.send(spec.Channel.Close(code, text, 0, 0))
        self.expect_end()

    def vanish(self) -> None:
        """Reset the connection, as the kernel of a killed broker does."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _send_content(self, method: amqp_object.Method, properties: spec.BasicProperties, body: bytes) -> None:
        self._sock.sendall(
            frame.Method(1, method).marshal()
            + frame.Header(1, len(body), properties).marshal()
            + frame.Body(1, body).marshal()
        )


Script = Callable[[Link], object]


class Peer:
    """Accepts connections while it is entered; leaving it waits for the scripts and raises what went wrong in them.

    A connection for which there is no script is closed at once, and is a failure.
    """

    def __init__(self, *scripts: Script, listening: bool = True) -> None:
        self._scripts = scripts
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._listening = listening

    def settings(self, **changes: object) -> Settings:
        """What a client needs to come here."""
        return Settings(**{"endpoints": (Endpoint("127.0.0.1", self.port),), **changes})  # type: ignore[arg-type]

    def listen(self) -> None:
        """Accept connections; before, they are refused."""
        self._listener.listen()
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._threads.append(thread)

    @property
    def connections(self) -> int:
        return len(self._sockets)

    def __enter__(self) -> Self:
        if self._listening:
            self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # shutdown, not close, is what wakes a thread in accept().
        if self._threads:
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(0 if error else PATIENCE)
        for sock in self._sockets:
            sock.close()
        if error is not None:
            for failure in self._failures:
                error.add_note(f"the peer: {failure!r}")
        elif self._failures:
            raise self._failures[0]
        else:
            missing = len(self._scripts) - self.connections
            assert missing <= 0, f"{missing} more connections were expected"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            if self.connections > len(self._scripts):
                self._failures.append(AssertionError(f"connection {self.connections} is one too many"))
                sock.close()
                continue
            thread = threading.Thread(target=self._play, args=(self._scripts[self.connections - 1], sock), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _play(self, script: Script, sock: socket.socket) -> None:
        try:
            script(Link(sock))
        except BaseException as error:
            self._failures.append(error)
        finally:
            sock.close()


@contextmanager
def running(client: Consumer | Producer, *, grace: float = PATIENCE) -> Iterator[None]:
    """Run a client in its thread, and stop it at the end."""
    client.start()
    try:
        yield
    finally:
        client.stop(grace)


def kinds(history: History, *wanted: Kind) -> list[Kind]:
    """The kinds of the events recorded, only those that are wanted."""
    return [event.kind for event in history.events() if event.kind in wanted]


def of_kind(history: History, kind: Kind) -> list[Event]:
    return [event for event in history.events() if event.kind is kind]
