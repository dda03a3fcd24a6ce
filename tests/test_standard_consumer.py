"""The control must die: each of these tests has a counterpart that the other consumer survives."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pika import spec
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from smoke.messages import Message
from smoke.standard_consumer import ConsumerCancelledError, consume
from tests.scripted_peer import PATIENCE, Link, Peer

STANDARD_CONSUMER = Path(__file__).parents[1] / "smoke" / "standard_consumer.py"


def test_it_works_as_long_as_nothing_happens() -> None:
    received: list[Message] = []

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        link.vanish()

    with Peer(script) as peer, pytest.raises(AMQPConnectionError):
        consume(peer.settings(), received.append)
    assert received == [Message("hello", 1.5)]


def test_it_dies_of_a_lost_connection() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.vanish()

    with Peer(script) as peer, pytest.raises(AMQPConnectionError):
        consume(peer.settings(), lambda _: None)


def test_it_dies_of_a_refused_connection() -> None:
    with Peer(listening=False) as peer, pytest.raises(AMQPConnectionError):
        consume(peer.settings(), lambda _: None)


def test_it_dies_of_a_shutdown() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.refuse(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")

    with Peer(script) as peer, pytest.raises(AMQPConnectionError, match="CONNECTION_FORCED"):
        consume(peer.settings(), lambda _: None)


def test_it_dies_of_a_closed_channel() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.send(spec.Channel.Close(406, "PRECONDITION_FAILED - timed out", 0, 0))
        link.expect(spec.Channel.CloseOk)
        link.expect(spec.Connection.Close)
        link.send(spec.Connection.CloseOk(), channel=0)

    with Peer(script) as peer, pytest.raises(ChannelClosedByBroker):
        consume(peer.settings(), lambda _: None)


def test_it_dies_of_a_cancellation() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.send(spec.Basic.Cancel("cluster_test"))
        link.serve_close()

    with Peer(script) as peer, pytest.raises(ConsumerCancelledError):
        consume(peer.settings(), lambda _: None)


def test_it_says_when_it_consumes() -> None:
    ready = threading.Event()

    def script(link: Link) -> None:
        link.serve_consumer()
        assert ready.wait(PATIENCE)
        link.vanish()

    with Peer(script) as peer, pytest.raises(AMQPConnectionError):
        consume(peer.settings(), lambda _: None, on_ready=ready.set)


def test_the_command_dies_with_one_line() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        link.vanish()

    with Peer(script) as peer:
        done = subprocess.run(
            [sys.executable, str(STANDARD_CONSUMER), "127.0.0.1", str(peer.port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
            check=False,
        )
    assert done.stdout == "Received: hello/1.5\n"
    assert done.returncode == 1
    assert done.stderr.startswith("standard_consumer: Stream connection lost")
    assert done.stderr.count("\n") == 1
