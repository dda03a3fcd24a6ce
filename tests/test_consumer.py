import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from pika import amqp_object, spec

from smoke.consumer import QUESTIONS, Consumer, main
from smoke.history import History, Kind
from smoke.messages import Message
from tests.scripted_peer import PATIENCE, Link, Peer, kinds, of_kind, running, wait_until

CONSUMER = Path(__file__).parents[1] / "smoke" / "consumer.py"
# Seconds between two questions to the queue: short, but a busy machine has to answer within QUESTIONS of them.
ASK = 0.2


class Handler:
    """Notes what it is given; holds it up while it is told to."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.started = threading.Semaphore(0)
        self.released = threading.Event()
        self.released.set()

    def __call__(self, message: Message) -> None:
        self.started.release()
        assert self.released.wait(PATIENCE)
        self.messages.append(message)

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.messages]


def finish(link: Link) -> None:
    link.serve_close(cancel=True)


def test_a_message_is_handled_and_then_acknowledged() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def script(link: Link) -> None:
        link.serve_consumer()
        tag = link.deliver("hello", message_id="p/1/1")
        assert handler.started.acquire(timeout=PATIENCE)
        link.expect_silence()
        handler.released.set()
        assert link.expect(spec.Basic.Ack).delivery_tag == tag
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
    assert handler.messages == [Message("hello", 1.5)]
    (delivery,) = of_kind(history, Kind.delivery)
    assert (delivery.producer, delivery.sequence, delivery.attempt, delivery.redelivered) == ("p", 1, 1, False)


def test_prefetch_and_consumer_tag_are_as_given() -> None:
    history = History()
    seen: list[object] = []

    def script(link: Link) -> None:
        link.accept()
        link.open_channel()
        link.topology()
        seen.append(link.expect(spec.Basic.Qos).prefetch_count)
        link.send(spec.Basic.QosOk())
        consume = link.expect(spec.Basic.Consume)
        seen.extend([consume.consumer_tag, consume.queue, consume.no_ack])
        link.send(spec.Basic.ConsumeOk(consume.consumer_tag))
        finish(link)

    with Peer(script) as peer:
        client = Consumer(peer.settings(), Handler(), observe=history, prefetch=7, consumer_tag="tag")
        with running(client):
            wait_until(lambda: of_kind(history, Kind.ready), "ready")
    assert seen == [7, "tag", "cluster_test", False]


def test_the_redelivered_flag_is_recorded() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello", message_id="p/1/1", redelivered=True)
        link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), Handler(), observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
    assert of_kind(history, Kind.delivery)[0].redelivered


def test_what_the_broker_says_of_earlier_deliveries_and_of_dead_lettering_is_recorded() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello", message_id="p/1/1")
        link.deliver("again", message_id="p/2/1", headers={"x-delivery-count": 3})
        link.deliver("dead", message_id="p/3/1", headers={"x-first-death-queue": "main"})
        for _ in range(3):
            link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), Handler(), observe=history)):
        wait_until(lambda: len(of_kind(history, Kind.ack)) == 3, "three acknowledgements")
    deliveries = of_kind(history, Kind.delivery)
    assert [event.delivery_count for event in deliveries] == [0, 3, 0]
    assert [event.dead_lettered for event in deliveries] == ["", "", "main"]
    assert {event.where for event in deliveries} == {"cluster_test"}


@pytest.mark.parametrize("carried", ["00000000", None])
def test_a_message_that_is_not_what_was_published_is_recorded_as_corrupt_and_rejected_for_good(
    carried: str | None,
) -> None:
    history, handler = History(), Handler()

    def script(link: Link) -> None:
        link.serve_consumer()
        bad = link.deliver("hello", message_id="p/1/1", headers={"checksum": carried})
        reject = link.expect(spec.Basic.Reject)
        assert (reject.delivery_tag, reject.requeue) == (bad, False)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.rejected), "a rejection")
    assert [event.corrupt for event in of_kind(history, Kind.delivery)] == [True]
    assert handler.messages == []


def test_a_message_of_somebody_else_needs_no_checksum() -> None:
    history, handler = History(), Handler()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
    assert [event.corrupt for event in of_kind(history, Kind.delivery)] == [False]


def test_a_consumer_that_left_nothing_in_hand_says_so() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_consumer()
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), Handler(), observe=history)):
        wait_until(lambda: of_kind(history, Kind.ready), "ready")
    assert len(of_kind(history, Kind.finished)) == 1


def test_a_cancelled_consumer_builds_everything_up_again() -> None:
    history, handler = History(), Handler()

    def cancelled(link: Link) -> None:
        link.serve_consumer()
        link.send(spec.Basic.Cancel("cluster_test"))
        link.expect_end()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(cancelled, script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement after the cancellation")
    assert kinds(history, Kind.ready, Kind.cancelled, Kind.lost) == [Kind.ready, Kind.cancelled, Kind.lost, Kind.ready]


def test_a_tag_is_never_acknowledged_on_another_channel() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def lost(link: Link) -> None:
        link.serve_consumer()
        link.deliver("old", message_id="p/1/1", tag=1)
        assert handler.started.acquire(timeout=PATIENCE)
        link.vanish()

    def script(link: Link) -> None:
        link.serve_consumer()
        # On this channel, tag 1 is another message, and the handler still has the first one.
        link.deliver("new", message_id="p/2/1", tag=1)
        wait_until(lambda: len(of_kind(history, Kind.delivery)) == 2, "the second delivery")
        link.expect_silence()
        handler.released.set()
        assert link.expect(spec.Basic.Ack).delivery_tag == 1
        # Another acknowledgement would come here, before the cancellation.
        finish(link)

    with Peer(lost, script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
        wait_until(lambda: peer.connections == 2, "the second connection")
    assert [event.sequence for event in of_kind(history, Kind.stale)] == [1]
    assert [event.sequence for event in of_kind(history, Kind.ack)] == [2]


def test_a_message_that_waits_for_the_handler_is_left_to_the_broker_when_its_channel_is_gone() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def lost(link: Link) -> None:
        link.serve_consumer()
        link.deliver("first", message_id="p/1/1")
        link.deliver("second", message_id="p/2/1")
        wait_until(lambda: len(of_kind(history, Kind.delivery)) == 2, "both deliveries")
        assert handler.started.acquire(timeout=PATIENCE)
        link.vanish()

    def script(link: Link) -> None:
        link.serve_consumer()
        handler.released.set()
        finish(link)

    with Peer(lost, script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: len(of_kind(history, Kind.stale)) == 2, "both messages stale")
        wait_until(lambda: len(of_kind(history, Kind.ready)) == 2, "ready again")
    assert handler.contents == ["first"]


def test_what_follows_a_cancellation_in_the_same_segment_is_void() -> None:
    history, handler = History(), Handler()

    def cancelled(link: Link) -> None:
        link.serve_consumer()
        link.send(spec.Basic.Cancel("other"), spec.Basic.Cancel("cluster_test"))
        link.expect_end()

    def script(link: Link) -> None:
        link.serve_consumer()
        finish(link)

    with Peer(cancelled, script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: len(of_kind(history, Kind.ready)) == 2, "ready again")
    assert len(of_kind(history, Kind.cancelled)) == 1


def answer(link: Link, consumers: int) -> None:
    """Say how many consumers the queue has, which the client asks without wanting to change anything."""
    question = link.expect(spec.Queue.Declare)
    assert (question.queue, question.passive) == ("cluster_test", True)
    link.send(spec.Queue.DeclareOk("cluster_test", message_count=0, consumer_count=consumers))


def test_a_silent_queue_is_asked_whether_it_has_a_consumer() -> None:
    history, asked = History(), threading.Event()

    def script(link: Link) -> None:
        link.serve_consumer()
        # Never twice in a row without the right one.
        for consumers in (1, 0, 1, 0, 1):
            answer(link, consumers)
        asked.set()
        link.expect_end()

    with (
        Peer(script) as peer,
        running(Consumer(peer.settings(), Handler(), observe=history, ask_interval=ASK), grace=0),
    ):
        assert asked.wait(PATIENCE)
    assert of_kind(history, Kind.lost) == []


@pytest.mark.parametrize("answered", [True, False], ids=["says no", "says nothing"])
def test_a_queue_that_twice_knows_of_no_consumer_is_consumed_anew(answered: bool) -> None:
    history, handler = History(), Handler()

    def forgotten(link: Link) -> None:
        link.serve_consumer()
        if answered:
            answer(link, 0)
            answer(link, 0)
        link.expect_end()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect_end()

    with Peer(forgotten, script) as peer:
        client = Consumer(peer.settings(), handler, observe=history, ask_interval=ASK)
        with running(client, grace=0):
            wait_until(lambda: handler.messages, "a message from the new connection")
    (lost, *_) = of_kind(history, Kind.lost)
    assert lost.detail == f"the queue knows of no consumer for {QUESTIONS * ASK:g} s"


def test_a_delivery_is_as_good_as_an_answer() -> None:
    history, delivered = History(), threading.Event()

    def script(link: Link) -> None:
        link.serve_consumer()
        for number in range(5):
            answer(link, 0)
            link.deliver(f"hello {number}")
            link.expect(spec.Basic.Ack)
        delivered.set()
        link.expect_end()

    with (
        Peer(script) as peer,
        running(Consumer(peer.settings(), Handler(), observe=history, ask_interval=ASK), grace=0),
    ):
        assert delivered.wait(PATIENCE)
    assert of_kind(history, Kind.lost) == []


def test_a_message_that_is_not_json_is_rejected_for_good_and_the_next_one_handled() -> None:
    history, handler = History(), Handler()

    def script(link: Link) -> None:
        link.serve_consumer()
        bad = link.deliver(b"not json", message_id="p/1/1")
        reject = link.expect(spec.Basic.Reject)
        assert (reject.delivery_tag, reject.requeue) == (bad, False)
        good = link.deliver("hello")
        assert link.expect(spec.Basic.Ack).delivery_tag == good
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
    assert handler.contents == ["hello"]
    (rejected,) = of_kind(history, Kind.rejected)
    assert rejected.sequence == 1
    assert "not JSON" in rejected.detail


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3)])
def test_a_message_whose_handler_fails_is_requeued_and_the_next_one_handled(failure: BaseException) -> None:
    history, handled = History(), []

    def handler(message: Message) -> None:
        if message.content == "bad":
            raise failure
        handled.append(message.content)

    def script(link: Link) -> None:
        link.serve_consumer()
        bad = link.deliver("bad")
        reject = link.expect(spec.Basic.Reject)
        assert (reject.delivery_tag, reject.requeue) == (bad, True)
        link.deliver("good")
        link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")
    assert handled == ["good"]
    assert repr(failure) in of_kind(history, Kind.requeued)[0].detail
    assert of_kind(history, Kind.rejected) == []


def test_a_slow_handler_does_not_starve_heartbeats() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect_heartbeat()
        handler.released.set()
        link.expect(spec.Basic.Ack)
        finish(link)

    with Peer(script) as peer, running(Consumer(peer.settings(heartbeat=1), handler, observe=history)):
        wait_until(lambda: of_kind(history, Kind.ack), "an acknowledgement")


def test_a_delivery_resets_the_backoff() -> None:
    history = History()
    ceilings: list[float] = []

    def draw(_: float, ceiling: float) -> float:
        ceilings.append(ceiling)
        return 0.0

    def lost(link: Link) -> None:
        link.serve_consumer()
        link.vanish()

    def brought_something(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        link.vanish()

    def script(link: Link) -> None:
        link.serve_consumer()
        finish(link)

    with Peer(lost, lost, brought_something, script) as peer:
        client = Consumer(peer.settings(), Handler(), observe=history)
        client._session._backoff._uniform = draw
        with running(client):
            wait_until(lambda: len(of_kind(history, Kind.ready)) == 4, "ready for the fourth time")
    assert ceilings == pytest.approx([0.1, 0.15, 0.1])


def test_a_stop_finishes_what_is_in_hand() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def script(link: Link) -> None:
        link.serve_consumer()
        tags = [link.deliver("first"), link.deliver("second")]
        wait_until(lambda: len(of_kind(history, Kind.delivery)) == 2, "both deliveries")
        link.serve_cancel()
        link.expect_silence()
        handler.released.set()
        assert [link.expect(spec.Basic.Ack).delivery_tag for _ in tags] == tags
        link.serve_close()

    with Peer(script) as peer:
        client = Consumer(peer.settings(), handler, observe=history)
        client.start()
        wait_until(lambda: len(of_kind(history, Kind.delivery)) == 2, "both deliveries")
        assert client.stop(grace=PATIENCE)
    assert handler.contents == ["first", "second"]


def test_a_stop_processes_what_was_on_its_way() -> None:
    history, handler = History(), Handler()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.expect(spec.Basic.Qos)
        link.deliver("late")
        link.send(spec.Basic.QosOk())
        methods = Counter(type(link.expect(amqp_object.Method)) for _ in range(2))
        assert methods == {spec.Basic.Ack: 1, spec.Basic.Cancel: 1}
        link.send(spec.Basic.CancelOk("cluster_test"))
        link.serve_close()

    with Peer(script) as peer:
        client = Consumer(peer.settings(), handler, observe=history)
        client.start()
        wait_until(lambda: of_kind(history, Kind.ready), "the consumer is ready")
        assert client.stop(grace=PATIENCE)
    assert handler.contents == ["late"]


def test_a_stop_does_not_wait_longer_than_its_grace() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.serve_cancel()
        link.expect_end()

    with Peer(script) as peer:
        client = Consumer(peer.settings(), handler, observe=history)
        client.start()
        assert handler.started.acquire(timeout=PATIENCE)
        assert not client.stop(grace=0.1)
    handler.released.set()


def test_a_stop_does_not_hang_on_a_broker_that_is_frozen() -> None:
    history = History()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.expect_end()

    with Peer(script) as peer:
        client = Consumer(peer.settings(), Handler(), observe=history)
        client.start()
        wait_until(lambda: of_kind(history, Kind.ready), "ready")
        assert client.stop(grace=0.1)


def test_a_connection_lost_during_a_stop_is_not_made_again() -> None:
    history, handler = History(), Handler()
    handler.released.clear()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.serve_cancel()
        link.vanish()

    with Peer(script) as peer:
        client = Consumer(peer.settings(), handler, observe=history)
        client.start()
        assert handler.started.acquire(timeout=PATIENCE)
        client.request_stop(grace=PATIENCE)
        wait_until(lambda: of_kind(history, Kind.lost), "the loss")
        handler.released.set()
        assert not client.stop()
    assert len(of_kind(history, Kind.connected)) == 1


@contextmanager
def command(
    port: int, *arguments: str, stdout: int | IO[str] = subprocess.PIPE, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run the consumer as an operator does: as a file, from wherever."""
    process = subprocess.Popen(
        [sys.executable, str(CONSUMER), "127.0.0.1", str(port), *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_what_it_receives_and_ends_well_on_a_signal(number: signal.Signals) -> None:
    acknowledged = threading.Event()

    def lost(link: Link) -> None:
        link.serve_consumer()
        link.vanish()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        acknowledged.set()
        finish(link)

    with Peer(lost, script) as peer, command(peer.port) as process:
        assert acknowledged.wait(PATIENCE)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert out == "Received: hello/1.5\n"
    assert process.returncode == 0
    notices = err.splitlines()
    assert [notice.split()[0] for notice in notices] == ["connected", "ready", "lost", "next", "connected", "ready"]
    assert f"127.0.0.1:{peer.port}" in notices[2]


def test_the_command_has_recorded_what_happened_when_it_is_killed(tmp_path: Path) -> None:
    acknowledged = threading.Event()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello", message_id="p/1/1")
        link.expect(spec.Basic.Ack)
        acknowledged.set()
        link.expect_end()

    file = tmp_path / "history.jsonl"
    with Peer(script) as peer, command(peer.port, "--history", str(file)) as process:
        assert acknowledged.wait(PATIENCE)
        # It is recorded before the next turn of the loop, not before the broker has it.
        wait_until(lambda: '"kind":"ack"' in file.read_text(), "the acknowledgement is recorded")
        process.kill()
        process.wait()
    recorded = History.load(file)
    wanted = (Kind.connected, Kind.ready, Kind.delivery, Kind.ack)
    assert kinds(recorded, *wanted) == list(wanted)
    assert of_kind(recorded, Kind.delivery)[0].producer == "p"


def test_the_command_goes_on_when_it_cannot_record_any_more(tmp_path: Path) -> None:
    acknowledged = threading.Event()
    directory = tmp_path / "directory"
    directory.mkdir()
    file = directory / "history.jsonl"

    def script(link: Link) -> None:
        link.serve_consumer()
        wait_until(lambda: '"kind":"ready"' in file.read_text(), "it has nothing more to record")
        file.unlink()
        directory.rmdir()
        link.deliver("hello")
        link.expect(spec.Basic.Ack)
        acknowledged.set()
        finish(link)

    with Peer(script) as peer, command(peer.port, "--history", str(file)) as process:
        assert acknowledged.wait(PATIENCE)
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "event not recorded" in err


def test_the_command_prints_what_no_terminal_can_show() -> None:
    acknowledged = threading.Event()

    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("\udc80 späße")
        link.expect(spec.Basic.Ack)
        acknowledged.set()
        finish(link)

    with Peer(script) as peer, command(peer.port, environment={"PYTHONIOENCODING": "ascii"}) as process:
        assert acknowledged.wait(PATIENCE)
        process.terminate()
        out, _ = process.communicate(timeout=PATIENCE)
    assert out == "Received: \\udc80 sp\\xe4\\xdfe/1.5\n"


def test_the_command_ends_when_nobody_reads_what_it_prints_and_does_not_acknowledge() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        assert process.stdout is not None
        process.stdout.close()
        for tag in (1, 2):
            link.deliver("hello", tag=tag)
        link.serve_farewell()
        methods = Counter(type(link.expect(amqp_object.Method)) for _ in range(3))
        assert methods == {spec.Basic.Reject: 2, spec.Basic.Cancel: 1}
        link.send(spec.Basic.CancelOk("cluster_test"))
        link.serve_close()

    with Peer(script) as peer, command(peer.port) as process:
        process.wait(PATIENCE)
    assert process.returncode == 0


def test_the_command_says_so_when_what_it_prints_cannot_be_written() -> None:
    def script(link: Link) -> None:
        link.serve_consumer()
        link.deliver("hello")
        link.serve_farewell()
        methods = [type(link.expect(amqp_object.Method)) for _ in range(2)]
        # First it ends its consumer: what it gives back before that would come again.
        assert methods == [spec.Basic.Cancel, spec.Basic.Reject]
        link.send(spec.Basic.CancelOk("cluster_test"))
        link.serve_close()

    with Peer(script) as peer, Path("/dev/full").open("w") as full, command(peer.port, stdout=full) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "consumer: its output could not be written: [Errno 28]" in err


def refuse_login(link: Link) -> None:
    link.start()
    link.expect(spec.Connection.StartOk)
    link.refuse(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")


def test_the_command_ends_with_one_line_when_it_is_refused() -> None:
    with Peer(refuse_login) as peer, command(peer.port) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith(f"consumer: 127.0.0.1:{peer.port} refuses user 'guest' in vhost '/': ACCESS_REFUSED")
    assert err.count("\n") == 1


@pytest.mark.parametrize("source", ["environment", "file"])
def test_the_password_comes_from_the_environment_or_a_file(source: str, tmp_path: Path) -> None:
    seen = []

    def script(link: Link) -> None:
        link.start()
        seen.append(link.expect(spec.Connection.StartOk).response)
        link.refuse(403, "ACCESS_REFUSED")

    arguments = ["--user", "alice"]
    environment = {}
    if source == "file":
        (tmp_path / "password").write_text("s3cret\n")
        arguments += ["--password-file", str(tmp_path / "password")]
    else:
        environment = {"RABBITMQ_PASSWORD": "s3cret"}
    with Peer(script) as peer, command(peer.port, *arguments, environment=environment) as process:
        process.communicate(timeout=PATIENCE)
    assert seen in (["\0alice\0s3cret"], [b"\0alice\0s3cret"])


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["127.0.0.1", "0"], "PORT"),
        (["127.0.0.1", "amqp"], "PORT"),
        (["127.0.0.1"], "PORT"),
        (["127.0.0.1", "1", "--queue-type", "stream"], "--queue-type"),
        (["127.0.0.1", "1", "--prefetch", "0"], "--prefetch"),
        (["127.0.0.1", "1", "--endpoint", "nowhere"], "--endpoint"),
        (["127.0.0.1", "1", "--queue", "q" * 256], "--queue"),
        (["127.0.0.1", "1", "--password-file", "/does/not/exist"], "--password-file"),
        (["127.0.0.1", "1", "--password", "hunter2"], "--password"),
        (["127.0.0.1", "1", "--history", "/does/not/exist"], "--history"),
        (["127.0.0.1", "1", "--history", "history.jsonl.gz"], "--history"),
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
