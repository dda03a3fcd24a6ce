"""Whether a node has restarted is seen from the id of its process."""

from types import SimpleNamespace
from typing import cast

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.processes import Processes

NODES = tuple(Node(name, f"rabbit@{name}", "cluster", "127.0.0.1", 1, 2) for name in "abc")
DEPLOYMENT = cast(Deployment, SimpleNamespace(nodes=NODES))


def test_a_node_that_is_another_process_has_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = {"a": "11", "b": "12", "c": "13"}
    monkeypatch.setattr(management, "process", lambda _, node: processes[node.name])
    all_nodes, others = Processes(DEPLOYMENT), Processes(DEPLOYMENT, NODES[0], NODES[2])

    assert all_nodes.restarted() == set()
    processes["b"] = "112"
    assert all_nodes.restarted() == {"b"}
    assert others.restarted() == set()


def test_a_node_that_has_just_started_is_asked_until_it_knows_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{}, {}, {"os_pid": "11"}])
    monkeypatch.setattr(management, "get", lambda *_: next(answers))

    assert management.process(DEPLOYMENT, NODES[0]) == "11"
