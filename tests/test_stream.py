import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from smoke import aftermath, journal, management, partition
from smoke.consumer import Consumer
from smoke.deployment import Deployment, Node
from smoke.history import Event, History, Kind
from smoke.producer import Producer
from smoke.session import Endpoint, Settings
from smoke.stream import Clients, Stream
from smoke.topology import QueueType, Topology
from tests.scripted_peer import wait_until


class Loopback:
    """Both clients in one, and no broker: what is published is delivered at once."""

    def __init__(self, settings: Settings, observe: Callable[[Event], None]) -> None:
        self.producer = "p"
        self.topology = settings.topology
        self.contents: list[str] = []
        self._observe = observe

    def start(self) -> None:
        pass

    def publish(self, content: str, timeout: float) -> int:
        assert timeout > 0
        self.contents.append(content)
        for kind in (Kind.publish, Kind.confirm, Kind.delivery, Kind.ack):
            self._observe(Event(time.monotonic(), kind, "client", "p", len(self.contents), 1))
        return len(self.contents)

    def flush(self, timeout: float) -> bool:
        return timeout > 0

    def stop(self, _: float = 0.0) -> int:
        return 0


DEPLOYMENT = cast(
    Deployment,
    SimpleNamespace(
        nodes=(), settings=lambda topology: Settings(endpoints=(Endpoint("localhost", 1),), topology=topology)
    ),
)


@contextmanager
def flowing(*arguments: Any, **options: Any) -> Iterator[tuple[Stream, Loopback]]:
    made: list[Loopback] = []

    def make(settings: Settings, observe: Callable[[Event], None]) -> Loopback:
        made.append(Loopback(settings, observe))
        return made[-1]

    clients = Clients(
        producer=cast(Callable[[Settings, Callable[[Event], None]], Producer], make),
        consumer=cast(Callable[[Settings, Callable[[Event], None]], Consumer], make),
    )
    stream = Stream(DEPLOYMENT, *arguments, clients=clients, rate=200.0, **options)
    try:
        stream.start()
        # The producer is made last.
        yield stream, made[-1]
    finally:
        stream.stop_publishing()
        stream._whereabouts.stop()


def published(history: History) -> int:
    return len([event for event in history.events() if event.kind is Kind.publish])


def test_a_stream_publishes_nothing_while_it_is_paused_and_goes_on_afterwards() -> None:
    with flowing() as (stream, _):
        with stream.paused():
            before = published(stream.history)
            # The time of ten messages.
            time.sleep(0.05)
            assert published(stream.history) == before
        wait_until(lambda: published(stream.history) > before + 5, "messages after the pause")


def test_a_message_with_another_content_is_published_beside_the_others_even_in_a_pause() -> None:
    with flowing() as (stream, loopback), stream.paused():
        name, sequence = stream.publish("poison")
        assert (name, loopback.contents[sequence - 1]) == ("p", "poison")
    assert set(loopback.contents) == {"smoke", "poison"}


def test_a_stream_has_a_queue_like_another_one_under_names_of_its_own() -> None:
    with flowing(QueueType.QUORUM, like=Topology("e", "q", "k", QueueType.CLASSIC, delivery_limit=3)) as (stream, _):
        name = stream.topology.queue
        assert name.startswith("smoke-")
        assert stream.topology == Topology(name, name, name, QueueType.QUORUM, delivery_limit=3)


def test_clients_elsewhere_are_those_whose_latest_connection_ends_on_another_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = {"c1": "rabbit@a", "p1": "rabbit@a", "p2": "rabbit@b"}
    monkeypatch.setattr(
        management,
        "connections",
        lambda *_: [{"client_properties": {"connection_name": name}, "node": node} for name, node in nodes.items()],
    )
    on_a, on_b = (cast(Node, SimpleNamespace(nodename=f"rabbit@{name}")) for name in ("a", "b"))
    with flowing() as (stream, _):
        for at, client, name in ((1.0, "consumer", "c1"), (1.0, "producer", "p1"), (2.0, "producer", "p2")):
            stream.history(Event(at, Kind.connected, client, detail=name))

        assert stream.elsewhere(on_a) == ["producer"]
        assert stream.elsewhere(on_b) == ["consumer"]


@pytest.mark.parametrize("scar", ["assert_no_orphans", "assert_replicated"])
def test_what_a_partition_that_autoheal_left_does_to_a_queue_is_over_with_it(
    scar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cast(Node, SimpleNamespace(name="a"))
    ended: list[Node] = []

    def fails(*_: object) -> None:
        assert ended, "the queue bears a scar"

    monkeypatch.setattr(Stream, "_empty", lambda _: True)
    for check in ("assert_no_orphans", "assert_replicated"):
        monkeypatch.setattr(aftermath, check, fails if check == scar else lambda *_: None)
    monkeypatch.setattr(partition, "left_apart", lambda _: (node,))
    with flowing() as (stream, _):
        stream._deployment = cast(Deployment, SimpleNamespace(clustered=True, stop=lambda _: None, start=ended.append))
        stream.finish()

    assert ended == [node]
    (remark,) = journal.take_remarks()
    assert "the queue bears a scar" in remark
