"""What the suite removes from a broker is its own, and nothing of the operator's."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import cast

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.stream import NAMES

NODE = Node("a", "rabbit@a", "cluster", "127.0.0.1", 1, 2)


def test_only_queues_that_a_stream_of_the_suite_has_named_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = "smoke-00c0ffee"
    there = [own, "smoke-standard", "orders", f"{own}.dead", f"x{own}", "smoke-deadbee"]
    deleted = []
    monkeypatch.setattr(management, "get", lambda *_: [{"name": name} for name in there])
    monkeypatch.setattr(management, "delete", lambda _deployment, _node, path: deleted.append(path))

    management.remove_queues(cast(Deployment, SimpleNamespace(nodes=(NODE,))), NODE, NAMES)

    assert deleted == [f"queues/%2F/{own}"]


def test_a_deployment_of_which_one_node_can_be_reached_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Node("b", "rabbit@b", "cluster", "127.0.0.1", 1, server.getsockname()[1])
        management.assert_reachable(cast(Deployment, SimpleNamespace(nodes=(NODE, there), pool="pool")))


def test_a_deployment_that_is_not_there_is_named_with_what_helps() -> None:
    with pytest.raises(AssertionError, match=r"no node of pool .*a \(127\.0\.0\.1:2\): .*refused.*site\.yml"):
        management.assert_reachable(cast(Deployment, SimpleNamespace(nodes=(NODE,), pool="pool")))
