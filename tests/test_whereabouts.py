from types import SimpleNamespace
from typing import Any, cast

import pytest

from smoke import management, whereabouts
from smoke.deployment import Deployment, Node
from smoke.history import Event, History, Kind
from smoke.topology import Topology
from smoke.whereabouts import Whereabouts
from tests.scripted_peer import of_kind, wait_until

NODES = tuple(Node(name, f"rabbit@{name}", "cluster", "127.0.0.1", 1, 2) for name in ("a", "b"))


def asking(monkeypatch: pytest.MonkeyPatch, history: History, nodes: dict[str, str], dead: str = "") -> Whereabouts:
    """One that asks brokers which know these connections and their nodes; a dead one does not answer."""

    def connections(_: Deployment, __: Topology, node: Node) -> list[dict[str, Any]]:
        if node.name == dead:
            raise ConnectionRefusedError
        return [{"client_properties": {"connection_name": name}, "node": at} for name, at in nodes.items()]

    monkeypatch.setattr(management, "connections", connections)
    monkeypatch.setattr(whereabouts, "EVERY", 0.001)
    return Whereabouts(cast(Deployment, SimpleNamespace(nodes=NODES)), Topology(), history)


def connect(history: History, client: str, name: str) -> None:
    history(Event(1.0, Kind.connected, client, where="balancer", detail=name))


def located(history: History) -> list[tuple[str, str]]:
    return [(event.client, event.where) for event in of_kind(history, Kind.located)]


@pytest.mark.parametrize("dead", ["", "a"])
def test_each_connection_is_located_once_by_whichever_node_answers(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    history = History()
    asked = asking(monkeypatch, history, {"one": "rabbit@a", "two": "rabbit@b"}, dead)
    connect(history, "producer", "one")
    connect(history, "consumer", "two")
    asked.start()
    wait_until(lambda: len(located(history)) == 2, "both are located")
    asked.stop()
    assert located(history) == [("producer", "rabbit@a"), ("consumer", "rabbit@b")]


def test_only_the_latest_connection_of_a_client_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    asked = asking(monkeypatch, history, {"old": "rabbit@a", "new": "rabbit@b"})
    connect(history, "producer", "old")
    history(Event(2.0, Kind.lost, "producer"))
    connect(history, "producer", "new")
    asked.start()
    wait_until(lambda: located(history), "it is located")
    asked.stop()
    assert located(history) == [("producer", "rabbit@b")]
