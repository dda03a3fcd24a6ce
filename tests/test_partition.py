"""Whether a partition is over, and who has to restart where it is not: against brokers that say what they are told."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import pytest

from smoke import aftermath, conftest, journal, management
from smoke.deployment import Deployment, Node, PlaybookError
from smoke.partition import left_apart, recovered

WAITS = "{rabbit@c,{winner_waiting,[rabbit@a],[rabbit@a]}}"


@pytest.fixture(autouse=True)
def _no_remarks() -> Iterator[None]:
    yield
    journal.take_remarks()


class Partitioned:
    """Three nodes that see partitions and heal as we say, until their restart."""

    def __init__(self, handling: str, partitions: dict[str, list[str]], states: str, monkeypatch: Any) -> None:
        self.nodes = tuple(
            Node(name, f"rabbit@{name}", "cluster", "127.0.0.1", 1, 2, {"rabbitmq_partition_handling": handling})
            for name in ("a", "b", "c")
        )
        self.partitions, self.states, self.flag = partitions, states, "disabled"
        self.restarted: list[str] = []
        monkeypatch.setattr(management, "get", self._get)
        monkeypatch.setattr(aftermath, "HEALING", 0)

    def _get(self, _deployment: Deployment, _node: Node, path: str) -> Any:
        if path == "feature-flags":
            return [{"name": "khepri_db", "state": self.flag}]
        return [{"name": node.nodename, "partitions": self._of(node)} for node in self.nodes]

    def _of(self, node: Node) -> list[str]:
        return [f"rabbit@{name}" for name in self.partitions.get(node.name, ())]

    def run(self, *_: object, **__: object) -> str:
        return f"a | CHANGED | rc=0 >>\n[{self.states}]\nShared connection to a closed.\n"

    def stop(self, *nodes: Node) -> None:
        self.restarted = [node.name for node in nodes]

    def start(self, *_: Node) -> None:
        self.partitions, self.states = {}, ""

    def assert_none(self, _: Deployment) -> None:
        assert not self.partitions, "c sees a partition"


Make = Callable[..., Partitioned]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def make(handling: str = "autoheal", states: str = "", **partitions: list[str]) -> Partitioned:
        return Partitioned(handling, partitions, states, monkeypatch)

    return make


@pytest.mark.parametrize(
    ("handling", "flag", "states", "complaint"),
    [
        ("autoheal", "disabled", "", ""),
        ("autoheal", "disabled", WAITS, "winner_waiting"),
        ("autoheal", "enabled", WAITS, ""),
        ("pause_minority", "disabled", WAITS, ""),
    ],
    ids=["done", "under way", "no Mnesia", "another handling"],
)
def test_healing_is_over_when_every_node_has_done_with_it(
    handling: str, flag: str, states: str, complaint: str, make: Make
) -> None:
    nodes = make(handling, states)
    nodes.flag = flag
    with pytest.raises(AssertionError, match=complaint) if complaint else nullcontext():
        aftermath.assert_healed(cast(Deployment, nodes))


def test_a_node_that_does_not_say_whether_it_heals_is_waited_for(make: Make) -> None:
    def run(*_: object, **__: object) -> str:
        raise PlaybookError("ansible", 2, "{badrpc,noproc}")

    nodes = make()
    nodes.run = run  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match=r"does not say whether it heals: \{badrpc,noproc\}"):
        aftermath.assert_healed(cast(Deployment, nodes))


def test_a_node_that_autoheal_restarts_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: object) -> Any:
        if not away:
            return [{"name": "khepri_db", "state": "disabled"}]
        raise away.pop()

    away = [ConnectionRefusedError()]
    nodes = make()
    monkeypatch.setattr(management, "get", get)
    monkeypatch.setattr(aftermath, "HEALING", 10)
    aftermath.assert_healed(cast(Deployment, nodes))
    assert not away


@pytest.mark.parametrize(
    ("partitions", "states", "apart"),
    [
        ({}, "", ""),
        ({"c": ["a", "b"]}, "", "c"),
        ({"a": ["c"], "b": ["c"], "c": ["a", "b"]}, "", "c"),
        ({"a": ["b"]}, "", "b"),
        ({"a": ["b", "c"], "b": ["a", "c"], "c": ["a", "b"]}, "", "bc"),
        ({}, WAITS, "c"),
        ({}, WAITS.replace("rabbit@c", "'rabbit@c'"), "c"),
        ({"a": ["b"]}, WAITS, "bc"),
    ],
    ids=[
        "none",
        "seen by one",
        "seen by all",
        "between two",
        "all apart",
        "a healing that waits",
        "a name in quotes",
        "two at once",
    ],
)
def test_the_smaller_side_and_who_still_heals_have_to_restart(
    partitions: dict[str, list[str]], states: str, apart: str, make: Make
) -> None:
    left = left_apart(cast(Deployment, make(states=states, **partitions)))
    assert "".join(node.name for node in left) == apart


def test_a_partition_that_stays_is_ended_by_a_restart_and_told(make: Make) -> None:
    nodes = make(c=["a", "b"])
    recovered(cast(Deployment, nodes), nodes.assert_none)
    assert nodes.restarted == ["c"]
    (remark,) = journal.take_remarks()
    assert "left a partition (c sees a partition); stop.yml and start.yml of c ended it" in remark


def test_a_test_that_disrupts_nothing_does_not_end_a_partition_either(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = make(c=["a", "b"])
    monkeypatch.setattr(conftest, "assert_whole", nodes.assert_none)
    with pytest.raises(AssertionError, match="c sees a partition"):
        conftest.met_whole(cast(Deployment, nodes), disruptive=False)
    assert nodes.restarted == []
    conftest.met_whole(cast(Deployment, nodes), disruptive=True)
    assert nodes.restarted == ["c"]


@pytest.mark.parametrize("handling", ["pause_minority", "autoheal"])
def test_what_is_no_partition_left_by_autoheal_stays_a_failure(handling: str, make: Make) -> None:
    nodes = make(handling, **({"c": ["a"]} if handling == "pause_minority" else {}))

    def never(_: Deployment) -> None:
        raise AssertionError("a server is not UP")

    with pytest.raises(AssertionError, match="a server is not UP"):
        recovered(cast(Deployment, nodes), never)
    assert nodes.restarted == []
    assert journal.take_remarks() == []


def test_a_node_that_is_away_is_no_partition(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: object) -> Any:
        raise ConnectionRefusedError

    nodes = make(c=["a"])
    monkeypatch.setattr(management, "get", get)
    with pytest.raises(AssertionError, match="c sees a partition"):
        recovered(cast(Deployment, nodes), nodes.assert_none)
    assert nodes.restarted == []


def test_a_partition_that_a_restart_does_not_end_is_a_failure(make: Make) -> None:
    nodes = make(c=["a"])
    nodes.start = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="c sees a partition"):
        recovered(cast(Deployment, nodes), nodes.assert_none)
    assert nodes.restarted == ["c"]
