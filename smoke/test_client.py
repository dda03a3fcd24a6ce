"""What becomes of messages when clients fail, and what clients feel when what they work with is taken from them."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from smoke import journal, management
from smoke.broken import SLOW
from smoke.companion import Companion
from smoke.consumer import Consumer
from smoke.deployment import Deployment
from smoke.history import Event, History, Kind
from smoke.judge import Key, judge, lockstep
from smoke.messages import Message
from smoke.outlive import flow
from smoke.report import Record
from smoke.session import Settings
from smoke.stream import Clients, Stream, flowing
from smoke.topology import Topology
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full]

# A consumer that is stopped is handed messages until its prefetch, 20, is used up. This is enough to prove something.
SOME = 10
# How long a command may take to end once it is asked to, in seconds.
FAREWELL = 60.0
# The command's heartbeat is 10 s, and the broker gives a client up after two to three of these.
HEARTBEATS = 60.0

POISON = "poison"
# How often the queue delivers a message again before it puts it aside.
LIMIT = 3

CROWD = 200
# Within how many seconds all of them have to be back: on two processors it takes seconds to greet so many.
BACK = 30.0
# The first pause is between 0 and 0.1 s, so that by chance one in ten has the same, to 10 ms. Without jitter all have.
LOCKSTEP = 0.25


def test_what_a_killed_consumer_had_in_hand_goes_to_the_other_one(
    deployment: Deployment, record: Record, tmp_path: Path
) -> None:
    with flowing(deployment) as stream, accompanied(deployment, stream, tmp_path) as companion:
        # Stopped first, so that for certain it has something in hand.
        companion.send(signal.SIGSTOP)
        held = in_hand(stream)
        begin = time.monotonic()
        with journal.fault("a consumer is killed"):
            companion.send(signal.SIGKILL)
            assert companion.wait(FAREWELL) == -signal.SIGKILL
            passed_on(stream, held, since=begin, within=30)
        flow(stream, "messages flow to the other consumer", client="consumer")
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin))


def test_a_consumer_that_is_told_to_end_leaves_nothing_in_hand(
    deployment: Deployment, record: Record, tmp_path: Path
) -> None:
    with flowing(deployment) as stream, accompanied(deployment, stream, tmp_path) as companion:
        # Stopped first, so that for certain it has something in hand.
        companion.send(signal.SIGSTOP)
        held = in_hand(stream)
        begin = time.monotonic()
        with journal.fault("a consumer is told to end"):
            companion.send(signal.SIGTERM)
            companion.send(signal.SIGCONT)
            assert companion.wait(FAREWELL) == 0
        assert stream.events(Kind.finished, since=begin, client="companion"), "it does not say that it left nothing"
        flow(stream, "messages flow to the other consumer", client="consumer")
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        # What was on its way while it cancelled, which it never saw, may come again: see Consumer.stop().
        had = held | {of(event) for event in stream.events(Kind.delivery, since=0.0, client="companion")}
        again = {of(event) for event in stream.events(Kind.delivery, since=begin) if event.redelivered}
        assert not had & again, "it left messages that it had to be delivered again"
        record(stream.verdict(since=begin))


def test_a_consumer_that_stands_still_for_longer_than_its_heartbeat_is_given_up_and_comes_back(
    deployment: Deployment, record: Record, tmp_path: Path
) -> None:
    """What it finds in its socket when it goes on, others have processed meanwhile; only they are told so."""
    with flowing(deployment) as stream, accompanied(deployment, stream, tmp_path) as companion:
        begin = time.monotonic()
        with journal.fault("a consumer stands still"):
            companion.send(signal.SIGSTOP)
            passed_on(stream, in_hand(stream), since=begin, within=HEARTBEATS)
            again = time.monotonic()
            companion.send(signal.SIGCONT)
        for kind, what in ((Kind.lost, "it notices that it was given up"), (Kind.ready, "it consumes again")):
            stream.wait_for(kind, 1, since=again, client="companion", what=what)
        back = stream.events(Kind.ready, since=again, client="companion")[0].at
        stream.wait_for(Kind.delivery, SOME, since=back, client="companion", what="messages flow to it again")
        companion.send(signal.SIGTERM)
        assert companion.wait(FAREWELL) == 0
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin))


def test_a_queue_that_is_deleted_is_declared_again(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        # What is in a queue goes with it.
        with stream.paused():
            begin = time.monotonic()
            with journal.fault("the queue is deleted"):
                management.delete(deployment, deployment.nodes[0], f"queues/%2F/{stream.topology.queue}")
            stream.wait_for(Kind.cancelled, 1, since=begin, client="consumer", what="the broker cancels the consumer")
        flow(stream, "messages flow through the new queue", client="consumer")
        stream.finish()
        record(stream.verdict(since=begin))


def test_a_binding_that_is_removed_is_declared_again(deployment: Deployment, record: Record) -> None:
    with flowing(deployment) as stream:
        begin = time.monotonic()
        with journal.fault("the binding is removed"):
            management.unbind(deployment, stream.topology)
        stream.wait_for(Kind.returned, 1, since=begin, client="producer", what="a message is returned")
        flow(stream, "messages flow through the new binding", client="consumer")
        stream.finish()
        stream.assert_undisturbed("producer", "consumer", since=begin)
        record(stream.verdict(since=begin))


def test_a_message_that_cannot_be_processed_is_put_aside_and_holds_nothing_up(
    deployment: Deployment, record: Record
) -> None:
    name = unique("dead")
    like = Topology(dead_letter_exchange=name, delivery_limit=LIMIT)
    with flowing(deployment, clients=Clients(consumer=picky), like=like) as stream:
        graveyard = Topology(name, name, stream.topology.routing_key)
        with removed(deployment, graveyard), consuming(deployment, graveyard, stream, "undertaker"):
            begin = time.monotonic()
            with journal.fault("a message cannot be processed"):
                poison = stream.publish(POISON)
                stream.wait_for(Kind.delivery, 1, since=begin, client="undertaker", what="the message is put aside")
            flow(stream, "the other messages flow", client="consumer")
            stream.finish()

        given_back = [event for event in stream.events(Kind.requeued, since=begin) if of(event) == poison]
        assert len(given_back) > LIMIT, f"given up after {len(given_back)} deliveries in vain"
        stream.assert_undisturbed("producer", "consumer", since=begin)
        verdict = stream.verdict(since=begin)
        assert verdict.dead_lettered == (poison,), verdict.sentence()
        record(verdict)


def test_two_hundred_clients_whose_connections_are_closed_at_once_come_back_one_by_one(
    deployment: Deployment, record: Record
) -> None:
    """Theirs is a queue without messages: what counts is how they come back, and that the stream survives it."""
    history = History()
    name = unique("crowd")
    with flowing(deployment) as stream, crowd(deployment, Topology(name, name, name), history):
        begin = time.monotonic()
        with journal.fault(f"the connections of {CROWD} clients are closed"):
            management.close_connections(deployment, deployment.user)
            await_clients(CROWD, history, Kind.lost, since=begin)
            await_clients(CROWD, history, Kind.ready, since=begin)
        stream.assert_noticed("producer", "consumer", since=begin)
        flow(stream, "messages flow", client="consumer")
        stream.finish()

        record(stream.verdict(since=begin))
        in_step = lockstep(history.since(begin), since=begin)
        assert in_step <= LOCKSTEP, f"{in_step:.0%} of the clients chose the same pause: they come back together"
    storms = judge(history.events()).failures()
    assert storms == [], storms


def test_the_order_is_kept_when_the_single_active_consumer_loses_its_connection(
    deployment: Deployment, record: Record
) -> None:
    with (
        flowing(deployment, like=Topology(single_active_consumer=True), clients=SLOW) as stream,
        consuming(deployment, stream.topology, stream, "standby"),
    ):
        flow(stream, "messages flow to the active consumer", client="consumer")
        early = stream.events(Kind.delivery, since=0.0, client="standby")
        assert early == [], "the second consumer was not inactive: this test proves nothing"
        begin = time.monotonic()
        with journal.fault("the connection of the active consumer is closed"):
            close(deployment, stream, "consumer")
            stream.wait_for(Kind.lost, 1, since=begin, client="consumer", what="the active consumer notices")
        flow(stream, "messages flow to the other consumer", client="standby")
        again = [event for event in stream.events(Kind.delivery, since=begin, client="standby") if event.redelivered]
        assert again, "the active consumer had nothing in hand: this test proves nothing"
        stream.finish()
        stream.assert_undisturbed("producer", "standby", since=begin)
        record(stream.verdict(since=begin, ordered=True))


def unique(purpose: str) -> str:
    """Return a name that nothing else has."""
    return f"smoke-{purpose}-{uuid.uuid4().hex[:8]}"


def of(event: Event) -> Key:
    """Return the message that an event is about, as verdicts call it."""
    return event.producer, event.sequence


@contextmanager
def accompanied(deployment: Deployment, stream: Stream, directory: Path) -> Iterator[Companion]:
    """A second consumer of a stream, in a process of its own, which works when the block begins."""
    settings = deployment.settings(stream.topology)
    with Companion(settings, directory / "companion.jsonl", stream.history) as companion:
        stream.wait_for(Kind.ack, SOME, since=0.0, client="companion", what="the second consumer works")
        yield companion


def in_hand(stream: Stream) -> set[Key]:
    """Wait until a consumer that stands still has messages in hand, and return which: nobody else has them."""
    eventually(lambda: len(unseen(stream)) >= SOME, within=30, what="a consumer is handed messages that it never sees")
    held = unseen(stream)
    # What was only on its way to the other consumer arrives there before what is published later.
    flow(stream, "the other consumer goes on", client="consumer")
    held &= unseen(stream)
    assert held, "the consumer that stands still has nothing in hand: this test proves nothing"
    return held


def unseen(stream: Stream) -> set[Key]:
    """Return the messages that are confirmed, and that no consumer has seen."""
    seen: dict[Kind, set[Key]] = {Kind.confirm: set(), Kind.delivery: set()}
    for event in stream.history.events():
        if event.kind in seen:
            seen[event.kind].add(of(event))
    return seen[Kind.confirm] - seen[Kind.delivery]


def passed_on(stream: Stream, held: set[Key], *, since: float, within: float) -> None:
    """Wait until the consumer of a stream has got messages that another one had in hand, and was told so."""

    def arrived() -> bool:
        again = {
            of(event) for event in stream.events(Kind.delivery, since=since, client="consumer") if event.redelivered
        }
        assert held <= again, f"{len(held - again)} of {len(held)} are missing"
        return True

    eventually(arrived, within=within, what="the other consumer gets what was in hand, with the redelivered flag")


def picky(settings: Settings, observe: Callable[[Event], None]) -> Consumer:
    """Make a consumer that cannot process one message."""

    def handle(message: Message) -> None:
        if message.content == POISON:
            raise ValueError("this cannot be processed")

    return Consumer(settings, handle, observe=observe)


@contextmanager
def consuming(deployment: Deployment, topology: Topology, stream: Stream, name: str) -> Iterator[None]:
    """A further consumer whose events belong to a stream, which consumes when the block begins."""
    consumer = Consumer(deployment.settings(topology), lambda _: None, observe=stream.history, name=name)
    consumer.start()
    try:
        stream.wait_for(Kind.ready, 1, since=0.0, client=name, what=f"the {name} consumes")
        yield
    finally:
        consumer.stop()


@contextmanager
def removed(deployment: Deployment, topology: Topology) -> Iterator[None]:
    """Remove a queue and an exchange at the end of the block."""
    try:
        yield
    finally:
        management.remove(deployment, topology)


@contextmanager
def crowd(deployment: Deployment, topology: Topology, history: History) -> Iterator[None]:
    """So many consumers on one queue, all of which consume when the block begins."""
    settings = deployment.settings(topology)
    started: list[Consumer] = []
    with ExitStack() as ends:
        ends.enter_context(removed(deployment, topology))
        try:
            for number in range(CROWD):
                consumer = Consumer(settings, lambda _: None, observe=history, name=f"client {number}")
                consumer.start()
                started.append(consumer)
                ends.callback(consumer.stop)
                if number == 0:
                    # The queue, too, begins to exist once.
                    await_clients(1, history, Kind.ready, since=0.0)
            await_clients(CROWD, history, Kind.ready, since=0.0)
            yield
        finally:
            # All at once: the callbacks only wait for them.
            for consumer in started:
                consumer.request_stop(FAREWELL)


def await_clients(count: int, history: History, kind: Kind, *, since: float) -> None:
    """Wait until so many clients have had an event since a moment."""

    def clients() -> bool:
        found = {event.client for event in history.since(since) if event.kind is kind}
        assert len(found) == count, f"only {len(found)}"
        return True

    eventually(clients, within=BACK, what=f"{count} clients: {kind}")


def close(deployment: Deployment, stream: Stream, client: str) -> None:
    """Close the connection of a client, as an operator does."""
    name = stream.events(Kind.connected, since=0.0, client=client)[-1].detail
    eventually(
        partial(_closed, deployment, stream.topology, name), within=30, what=f"the connection of the {client} is seen"
    )


def _closed(deployment: Deployment, topology: Topology, name: str) -> bool:
    for connection in management.connections(deployment, topology):
        if connection["client_properties"]["connection_name"] == name:
            management.close_connection(deployment, connection["name"])
            return True
    return False
