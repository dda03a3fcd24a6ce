import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pika import spec

from smoke.backoff import Backoff
from smoke.history import History, Kind
from smoke.judge import judge
from smoke.messages import Message, checksum
from smoke.producer import Producer, main
from smoke.session import FatalError
from tests.scripted_peer import PATIENCE, Link, Peer, Published, kinds, of_kind, running, wait_until

PRODUCER = Path(__file__).parents[1] / "smoke" / "producer.py"


def content(message: Published) -> str:
    return str(json.loads(message.body)["content"])


def number(message: Published) -> tuple[int, int]:
    """Sequence and attempt."""
    _, sequence, attempt = message.message_id.split("/")
    return int(sequence), int(attempt)


def confirm_everything(link: Link) -> None:
    """Confirm whatever comes, until the client says goodbye."""
    link.serve_producer()
    link.confirm_until_close()


def test_a_message_is_persistent_mandatory_and_json_with_an_identity() -> None:
    received = []

    def script(link: Link) -> None:
        link.serve_producer()
        received.append(link.receive())
        link.ack(received[0])
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings())
        with running(client):
            assert client.publish("hello") == 1
            assert client.flush(PATIENCE)
    (message,) = received
    assert set(json.loads(message.body)) == {"content", "time"}
    assert (message.method.exchange, message.method.routing_key, message.method.mandatory) == (
        "cluster_test",
        "cluster_test",
        True,
    )
    assert (message.properties.delivery_mode, message.properties.content_type) == (2, "application/json")
    assert message.message_id == f"{client.producer}/1/1"
    assert message.properties.headers == {"checksum": checksum(message.message_id, message.body)}


def test_a_confirm_is_recorded_and_passed_on() -> None:
    history, confirmed = History(), list[Message]()
    with Peer(confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history, confirmed=confirmed.append)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert [message.content for message in confirmed] == ["hello"]
    assert kinds(history, Kind.publish, Kind.confirm) == [Kind.publish, Kind.confirm]


def test_a_producer_with_nothing_unconfirmed_says_so_at_its_end() -> None:
    history = History()
    with Peer(confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert len(of_kind(history, Kind.finished)) == 1


def test_a_producer_with_something_unconfirmed_does_not_say_that_it_finished() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_producer()
        link.receive()
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client, grace=0):
            client.publish("hello")
            wait_until(lambda: of_kind(history, Kind.publish), "a publication")
    assert of_kind(history, Kind.finished) == []


def test_one_confirm_may_stand_for_many() -> None:
    def script(link: Link) -> None:
        link.serve_producer()
        messages = [link.receive() for _ in range(5)]
        link.ack(messages[3], multiple=True)
        link.ack(messages[4])
        link.serve_close()

    history = History()
    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            for _ in range(5):
                client.publish("hello")
            assert client.flush(PATIENCE)
    assert [event.sequence for event in of_kind(history, Kind.confirm)] == [1, 2, 3, 4, 5]


def test_two_producers_never_share_an_identity() -> None:
    with Peer(listening=False) as peer:
        one, other = Producer(peer.settings()), Producer(peer.settings())
        with running(one), running(other):
            assert one.producer != other.producer


def test_unconfirmed_messages_are_published_again_in_order_before_new_ones() -> None:
    history = History()
    lost = threading.Event()
    numbers = []

    def first(link: Link) -> None:
        link.serve_producer()
        messages = [link.receive() for _ in range(4)]
        link.ack(messages[1])
        wait_until(lambda: of_kind(history, Kind.confirm), "the confirm")
        link.vanish()
        wait_until(lambda: of_kind(history, Kind.lost), "the loss")
        lost.set()

    def second(link: Link) -> None:
        link.accept()
        link.open_channel()
        wait_until(lambda: client.unconfirmed == 4, "a new message")
        link.topology()
        link.expect(spec.Confirm.Select)
        link.send(spec.Confirm.SelectOk())
        messages = [link.receive() for _ in range(4)]
        numbers.extend([number(message) for message in messages])
        # Tags count from 1 again on a new channel.
        link.ack(messages[-1], multiple=True)
        link.serve_close()

    with Peer(first, second) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            for _ in range(4):
                client.publish("old")
            assert lost.wait(PATIENCE)
            client.publish("new")
            assert client.flush(PATIENCE)
    assert numbers == [(1, 2), (3, 2), (4, 2), (5, 1)]


def test_the_same_body_is_published_again() -> None:
    bodies = []

    def first(link: Link) -> None:
        link.serve_producer()
        bodies.append(link.receive().body)
        link.vanish()

    def second(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        bodies.append(message.body)
        link.ack(message)
        link.serve_close()

    with Peer(first, second) as peer:
        client = Producer(peer.settings())
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("how", ["channel", "connection"])
def test_a_connection_closed_mid_publish_loses_nothing(how: str) -> None:
    def first(link: Link) -> None:
        link.serve_producer()
        link.receive()
        if how == "channel":
            link.close_channel(404, "NOT_FOUND - no exchange 'cluster_test' in vhost '/'")
        else:
            link.refuse(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")

    history = History()
    with Peer(first, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            for _ in range(20):
                client.publish("hello")
            assert client.flush(PATIENCE)
    assert sorted(event.sequence for event in of_kind(history, Kind.confirm)) == list(range(1, 21))


def test_a_nack_means_again() -> None:
    history, numbers = History(), []

    def script(link: Link) -> None:
        link.serve_producer()
        for _ in range(3):
            message = link.receive()
            numbers.append(number(message))
            link.send(spec.Basic.Nack(message.tag))
        message = link.receive()
        numbers.append(number(message))
        link.ack(message)
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert numbers == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert len(of_kind(history, Kind.nack)) == 3
    assert len(of_kind(history, Kind.lost)) == 0


def test_a_new_channel_with_nothing_but_nacks_is_given_up() -> None:
    history = History()

    def stubborn(link: Link) -> None:
        link.serve_producer()
        for _ in range(4):
            link.send(spec.Basic.Nack(link.receive().tag))
        link.expect_end()

    with Peer(stubborn, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert [event.detail for event in of_kind(history, Kind.lost)] == ["nothing but nacks on this channel"]
    assert [event.attempt for event in of_kind(history, Kind.confirm)] == [5]


def test_a_channel_that_has_confirmed_something_is_kept_whatever_it_refuses() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_producer()
        link.ack(link.receive())
        for _ in range(6):
            link.send(spec.Basic.Nack(link.receive().tag))
        link.confirm_until_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            client.publish("one")
            assert client.flush(PATIENCE)
            client._retry = Backoff(base=0.01, cap=0.01)
            client.publish("two")
            assert client.flush(PATIENCE)
    assert of_kind(history, Kind.lost) == []


def test_nacks_are_answered_by_backing_off() -> None:
    ceilings: list[float] = []

    def draw(_: float, ceiling: float) -> float:
        ceilings.append(ceiling)
        return 0.0

    def script(link: Link) -> None:
        link.serve_producer()
        for _ in range(3):
            link.send(spec.Basic.Nack(link.receive().tag))
        link.confirm_until_close()

    with Peer(script) as peer:
        client = Producer(peer.settings())
        client._retry._uniform = draw
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert ceilings == pytest.approx([0.05, 0.075, 0.1125])


def test_a_returned_message_is_not_confirmed_and_published_again_once_the_topology_is_rebuilt() -> None:
    history, numbers = History(), []

    def script(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        numbers.append(number(message))
        link.return_(message)
        link.ack(message)
        link.topology()
        message = link.receive()
        numbers.append(number(message))
        link.ack(message)
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert numbers == [(1, 1), (1, 2)]
    assert [(event.kind, event.attempt) for event in history.events() if event.sequence] == [
        (Kind.publish, 1),
        (Kind.returned, 1),
        (Kind.publish, 2),
        (Kind.confirm, 2),
    ]


def test_a_return_does_not_touch_its_neighbours() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_producer()
        _, second, third = (link.receive() for _ in range(3))
        link.return_(second)
        link.ack(third, multiple=True)
        link.topology()
        again = link.receive()
        assert number(again) == (2, 2)
        link.ack(again)
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            for _ in range(3):
                client.publish("hello")
            assert client.flush(PATIENCE)
    assert [(event.sequence, event.attempt) for event in of_kind(history, Kind.confirm)] == [(1, 1), (3, 1), (2, 2)]


def test_a_rebuild_that_is_not_answered_ends_the_connection() -> None:
    def script(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        link.return_(message)
        link.ack(message)
        link.expect(spec.Exchange.Declare)
        link.expect_end()

    history = History()
    with Peer(script, confirm_everything) as peer:
        client = Producer(peer.settings(setup_timeout=0.3), observe=history)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert "topology not declared within" in of_kind(history, Kind.lost)[0].detail


def test_a_confirm_that_never_comes_ends_the_connection() -> None:
    def mute(link: Link) -> None:
        link.serve_producer()
        link.receive()
        link.expect_end()

    history = History()
    with Peer(mute, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history, confirm_timeout=0.2)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)
    assert "no confirm within 0.2 s" in of_kind(history, Kind.lost)[0].detail
    published, _, again = (event for event in history.events() if event.kind in {Kind.publish, Kind.lost})
    assert 0.2 <= again.at - published.at < 2.0


def test_one_missing_confirm_among_others_ends_the_connection() -> None:
    def forgetful(link: Link) -> None:
        link.serve_producer()
        link.receive()
        before = link.receive()
        # The newest one is always young.
        with suppress(EOFError, ConnectionResetError, BrokenPipeError):
            while True:
                message = link.receive()
                link.ack(before)
                before = message

    history = History()
    with Peer(forgetful, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history, confirm_timeout=0.2)
        with running(client):
            begin = time.monotonic()
            while not of_kind(history, Kind.lost):
                assert time.monotonic() - begin < PATIENCE
                client.publish("hello", PATIENCE)
                client.flush(0.01)
            assert client.flush(PATIENCE)
    assert "no confirm" in of_kind(history, Kind.lost)[0].detail


def test_nothing_is_published_while_the_broker_blocks_and_its_clock_stands_still() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_producer()
        first = link.receive()
        link.send(spec.Connection.Blocked("low on memory"), channel=0)
        wait_until(lambda: client.unconfirmed == 2, "another message")
        # Longer than the confirm timeout, which must not end the connection meanwhile.
        link.expect_silence(0.3)
        link.send(spec.Connection.Unblocked(), channel=0)
        second = link.receive()
        link.ack(first)
        link.ack(second)
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), observe=history, confirm_timeout=0.2)
        with running(client):
            client.publish("first")
            wait_until(lambda: of_kind(history, Kind.blocked), "blocked")
            client.publish("second")
            assert client.flush(PATIENCE)
    assert kinds(history, Kind.blocked, Kind.unblocked, Kind.lost) == [Kind.blocked, Kind.unblocked]
    assert of_kind(history, Kind.blocked)[0].detail == "low on memory"


def test_the_confirm_timeout_counts_again_after_the_block() -> None:
    def script(link: Link) -> None:
        link.serve_producer()
        link.receive()
        link.send(spec.Connection.Blocked("low on memory"), channel=0)
        link.send(spec.Connection.Unblocked(), channel=0)
        link.expect_end()

    history = History()
    with Peer(script, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history, confirm_timeout=0.2)
        with running(client):
            client.publish("hello")
            assert client.flush(PATIENCE)


def test_a_block_ends_with_its_connection() -> None:
    def blocked(link: Link) -> None:
        link.serve_producer()
        link.send(spec.Connection.Blocked("low on memory"), channel=0)
        wait_until(lambda: of_kind(history, Kind.blocked), "blocked")
        link.vanish()

    history = History()
    with Peer(blocked, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            wait_until(lambda: of_kind(history, Kind.lost), "the loss")
            client.publish("hello")
            assert client.flush(PATIENCE)


def test_a_full_window_blocks_the_publisher() -> None:
    release = threading.Event()

    def script(link: Link) -> None:
        link.serve_producer()
        first, second = link.receive(), link.receive()
        link.expect_silence()
        release.wait(PATIENCE)
        link.ack(second, multiple=True)
        assert number(first) == (1, 1)
        link.confirm_until_close()

    with Peer(script) as peer:
        client = Producer(peer.settings(), window=2)
        with running(client):
            client.publish("first")
            client.publish("second")
            with pytest.raises(TimeoutError, match="2 messages unconfirmed"):
                client.publish("third", timeout=0.05)
            release.set()
            assert client.publish("third", timeout=PATIENCE) == 3
            assert client.flush(PATIENCE)


def test_a_confirm_resets_the_backoff() -> None:
    ceilings: list[float] = []

    def draw(_: float, ceiling: float) -> float:
        ceilings.append(ceiling)
        return 0.0

    def lost(link: Link) -> None:
        link.serve_producer()
        link.vanish()

    def confirms_one(link: Link) -> None:
        link.serve_producer()
        link.ack(link.receive())
        wait_until(lambda: of_kind(history, Kind.confirm), "the confirm")
        link.vanish()

    history = History()
    with Peer(lost, lost, confirms_one, confirm_everything) as peer:
        client = Producer(peer.settings(), observe=history)
        client._session._backoff._uniform = draw
        with running(client):
            wait_until(lambda: len(of_kind(history, Kind.ready)) >= 2, "a second connection")
            client.publish("hello")
            wait_until(lambda: len(of_kind(history, Kind.ready)) == 4, "a fourth connection")
    assert ceilings == pytest.approx([0.1, 0.15, 0.1])


def test_messages_published_before_the_first_connection_arrive() -> None:
    history = History()
    with Peer(confirm_everything, listening=False) as peer:
        client = Producer(peer.settings(), observe=history)
        with running(client):
            for _ in range(3):
                client.publish("hello")
            wait_until(lambda: of_kind(history, Kind.lost), "a first failure")
            peer.listen()
            assert client.flush(PATIENCE)
    assert {event.attempt for event in of_kind(history, Kind.confirm)} == {1}


def test_a_flush_that_takes_too_long_says_so() -> None:
    with Peer(listening=False) as peer:
        client = Producer(peer.settings())
        client.start()
        client.publish("hello")
        assert not client.flush(0.05)
        assert client.stop(grace=0.05) == 1


def test_a_stop_waits_for_the_confirms() -> None:
    def script(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        link.expect_silence()
        link.ack(message)
        link.serve_close()

    with Peer(script) as peer:
        client = Producer(peer.settings())
        client.start()
        client.publish("hello")
        assert client.stop(grace=PATIENCE) == 0


def test_a_stopped_producer_takes_no_message() -> None:
    with Peer(listening=False) as peer:
        client = Producer(peer.settings())
        client.start()
        client.stop(grace=0.0)
        with pytest.raises(RuntimeError, match="stopped"):
            client.publish("hello")


def refuse_login(link: Link) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)
    link.refuse(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")


def test_a_refusal_reaches_everybody_who_waits() -> None:
    with Peer(refuse_login) as peer:
        client = Producer(peer.settings(), window=1)
        client.publish("first")
        client.start()
        with pytest.raises(FatalError):
            client.publish("second")
        with pytest.raises(FatalError):
            client.flush()
        with pytest.raises(FatalError):
            client.stop()


@contextmanager
def command(port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the producer as an operator does: as a file, from wherever."""
    process = subprocess.Popen(
        [sys.executable, str(PRODUCER), "127.0.0.1", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "RABBITMQ_PASSWORD": "guest"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_command_prints_its_confirm_and_ends_well() -> None:
    with Peer(confirm_everything) as peer, command(peer.port, "hello") as process:
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.startswith("Confirmed: hello/")
    assert out.count("\n") == 1
    assert process.returncode == 0


def test_the_command_publishes_a_numbered_stream_across_a_loss() -> None:
    def lost(link: Link) -> None:
        link.serve_producer()
        link.ack(link.receive())
        link.receive()
        link.vanish()

    stream = ("hello", "--count", "5", "--rate", "50")
    with Peer(lost, confirm_everything) as peer, command(peer.port, *stream) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert [line.split("/")[0] for line in out.splitlines()] == [f"Confirmed: hello {n}" for n in range(1, 6)]
    assert process.returncode == 0
    assert "lost" in err


def test_the_command_records_what_the_judge_can_judge(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    with Peer(confirm_everything) as peer, command(peer.port, "hello", "--history", str(file)) as process:
        process.communicate(timeout=PATIENCE)
    verdict = judge(History.load(file).events())
    assert (verdict.confirmed, len(verdict.lost)) == (1, 1)


def test_the_command_keeps_to_its_rate() -> None:
    begin = time.monotonic()
    with Peer(confirm_everything) as peer, command(peer.port, "hello", "--count", "6", "--rate", "10") as process:
        process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begin >= 0.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_finishes_what_is_in_hand_on_a_signal(number: signal.Signals) -> None:
    process_started = threading.Event()

    def script(link: Link) -> None:
        link.serve_producer()
        message = link.receive()
        assert process_started.wait(PATIENCE)
        process.send_signal(number)
        link.expect_silence(0.3)
        link.ack(message)
        link.serve_close()

    with Peer(script) as peer, command(peer.port, "hello", "--count", "1000", "--rate", "0.1") as process:
        process_started.set()
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.startswith("Confirmed: hello 1/")
    assert out.count("\n") == 1
    assert process.returncode == 0


def test_the_command_says_what_stayed_unconfirmed() -> None:
    with Peer(listening=False) as peer, command(peer.port, "hello", "--timeout", "0.5") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert out == ""
    assert err.splitlines()[-1] == "producer: 1 of the messages published were not confirmed"
    assert process.returncode == 1


def test_the_command_ends_with_one_line_when_it_is_refused() -> None:
    with Peer(refuse_login) as peer, command(peer.port, "hello") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith(f"producer: 127.0.0.1:{peer.port} refuses user 'guest' in vhost '/': ACCESS_REFUSED")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["127.0.0.1", "1"], "CONTENT"),
        (["127.0.0.1", "1", "x", "--count", "0"], "--count"),
        (["127.0.0.1", "1", "x", "--rate", "0"], "--rate"),
        (["127.0.0.1", "1", "x", "--rate", "nan"], "--rate"),
        (["127.0.0.1", "1", "x", "--confirm-timeout", "-1"], "--confirm-timeout"),
        (["127.0.0.1", "1", "x", "--timeout", "soon"], "--timeout"),
        (["127.0.0.1", "1", "x", "--history", "/does/not/exist"], "--history"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert option in err
    assert err.count("\n") == 1
