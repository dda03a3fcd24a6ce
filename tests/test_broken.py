"""Each broken client does the one thing wrong that it is named for."""

import threading

from pika import spec

from smoke import broken
from smoke.history import History, Kind
from smoke.judge import judge
from tests.scripted_peer import PATIENCE, Link, Peer, of_kind, running, wait_until


def serve_without_confirms(link: Link) -> None:
    link.accept()
    link.open_channel()
    link.topology()


def test_auto_ack_consumes_without_acknowledging() -> None:
    history = History()
    asked = []

    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.topology()
        link.expect(spec.Basic.Qos)
        link.send(spec.Basic.QosOk())
        consume = link.expect(spec.Basic.Consume)
        asked.append(consume.no_ack)
        link.send(spec.Basic.ConsumeOk(consume.consumer_tag))
        link.deliver("hello", message_id="p/1/1")
        link.serve_close(cancel=True)

    with Peer(script) as peer, running(broken.AUTO_ACK.consumer(peer.settings(), history)):
        wait_until(lambda: of_kind(history, Kind.ack), "the message is processed")
    assert asked == [True]


def test_no_confirms_takes_what_it_has_sent_for_safe() -> None:
    history = History()

    def script(link: Link) -> None:
        serve_without_confirms(link)
        link.receive()
        link.receive()
        link.serve_close()

    with Peer(script) as peer:
        client = broken.NO_CONFIRMS.producer(peer.settings(), history)
        with running(client):
            client.publish("one")
            client.publish("two")
            assert client.flush(1)
    assert [event.sequence for event in of_kind(history, Kind.confirm)] == [1, 2]


def test_no_republish_forgets_what_was_not_confirmed_and_says_that_it_finished() -> None:
    history = History()

    def first(link: Link) -> None:
        link.serve_producer()
        link.receive()
        link.vanish()

    silent = threading.Event()

    def second(link: Link) -> None:
        link.serve_producer()
        link.expect_silence()
        silent.set()
        link.serve_close()

    with Peer(first, second) as peer:
        client = broken.NO_REPUBLISH.producer(peer.settings(), history)
        with running(client):
            client.publish("hello")
            assert silent.wait(PATIENCE)
            assert client.unconfirmed == 0
    assert judge(history.events()).abandoned == ((client.producer, 1),)


def test_no_republish_forgets_what_was_refused() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_producer()
        link.send(spec.Basic.Nack(link.receive().tag))
        link.serve_close()

    with Peer(script) as peer:
        client = broken.NO_REPUBLISH.producer(peer.settings(), history)
        with running(client):
            client.publish("hello")
            wait_until(lambda: of_kind(history, Kind.nack), "a nack")
            wait_until(lambda: client.unconfirmed == 0, "the message is forgotten")
    assert len(of_kind(history, Kind.publish)) == 1


def test_transient_messages_are_not_to_be_written_to_disk() -> None:
    modes = []

    def script(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        modes.append(message.properties.delivery_mode)
        link.ack(message)
        link.serve_close()

    with Peer(script) as peer:
        client = broken.TRANSIENT.producer(peer.settings(), History())
        with running(client):
            client.publish("hello")
    assert modes == [1]


def test_no_cancel_stays_where_it_gets_nothing_any_more() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.send(spec.Basic.Cancel("cluster_test"))
        link.expect_silence()
        silent.set()
        link.expect_end()

    silent = threading.Event()
    with Peer(script) as peer, running(broken.NO_CANCEL.consumer(peer.settings(), history), grace=0.5):
        assert silent.wait(PATIENCE)
    assert of_kind(history, Kind.cancelled) == []


def test_storming_tries_without_a_pause() -> None:
    history = History()
    with Peer(listening=False) as peer, running(broken.STORMING.consumer(peer.settings(), history)):
        wait_until(lambda: len(of_kind(history, Kind.connecting)) >= 15, "many tries")
    assert "attempts within a second" in judge(history.events()).attempts["consumer"].complaint
