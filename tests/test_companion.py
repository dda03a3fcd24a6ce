import signal
from pathlib import Path

from pika import spec

from smoke.companion import Companion
from smoke.history import History, Kind
from smoke.session import Settings
from smoke.topology import QueueType, Topology
from tests.scripted_peer import PATIENCE, Link, Peer, of_kind, wait_until

TOPOLOGY = Topology("my exchange", "my queue", "my key", QueueType.CLASSIC)


def serve(link: Link) -> None:
    link.serve_consumer()
    link.deliver("hello", message_id="p/1/1")
    link.expect(spec.Basic.Ack)


def serve_to_the_end(link: Link) -> None:
    serve(link)
    link.serve_close(cancel=True)


def serve_a_victim(link: Link) -> None:
    serve(link)
    link.expect_end()


def settings(peer: Peer) -> Settings:
    return peer.settings(user="alice", password="s3cret", topology=TOPOLOGY)


def test_a_companion_says_under_its_own_name_what_it_does(tmp_path: Path) -> None:
    history = History()
    with Peer(serve_to_the_end) as peer, Companion(settings(peer), tmp_path / "file", history) as companion:
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
        companion.send(signal.SIGTERM)
        assert companion.wait(PATIENCE) == 0
    assert {event.client for event in history.events()} == {"companion"}
    assert [event.producer for event in of_kind(history, Kind.delivery)] == ["p"]


def test_when_a_companion_has_ended_all_its_events_are_there(tmp_path: Path) -> None:
    history = History()
    with Peer(serve_to_the_end) as peer, Companion(settings(peer), tmp_path / "file", history) as companion:
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
        companion.send(signal.SIGTERM)
        companion.wait(PATIENCE)
        assert len(of_kind(history, Kind.finished)) == 1


def test_a_companion_can_be_killed(tmp_path: Path) -> None:
    history = History()
    with Peer(serve_a_victim) as peer, Companion(settings(peer), tmp_path / "file", history) as companion:
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
        companion.send(signal.SIGKILL)
        assert companion.wait(PATIENCE) == -signal.SIGKILL
    assert of_kind(history, Kind.finished) == []


def test_a_companion_that_stands_still_does_not_outlive_its_block(tmp_path: Path) -> None:
    history = History()
    with Peer(serve_a_victim) as peer:
        with Companion(settings(peer), tmp_path / "file", history) as companion:
            wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
            companion.send(signal.SIGSTOP)
        assert companion.wait(PATIENCE) == -signal.SIGKILL


def test_a_companion_is_told_where_to_work_and_as_whom(tmp_path: Path) -> None:
    seen: list[object] = []

    def script(link: Link) -> None:
        link.start()
        seen.append(link.expect(spec.Connection.StartOk).response)
        link.tune()
        link.expect(spec.Connection.Open)
        link.send(spec.Connection.OpenOk(), channel=0)
        link.open_channel()
        link.topology()
        exchange, queue, bind = link.declared
        assert isinstance(exchange, spec.Exchange.Declare)
        assert isinstance(queue, spec.Queue.Declare)
        assert isinstance(bind, spec.Queue.Bind)
        seen.extend([exchange.exchange, queue.queue, bind.routing_key, queue.arguments])
        done.append(True)
        link.expect_end()

    done: list[bool] = []
    with Peer(script) as peer, Companion(settings(peer), tmp_path / "file", History()):
        wait_until(lambda: done, "it has declared its topology")
    login, *names = seen
    assert login in ("\0alice\0s3cret", b"\0alice\0s3cret")
    assert names == ["my exchange", "my queue", "my key", {"x-queue-type": "classic"}]
