"""What the suite removes from a broker is its own, and nothing of the operator's."""

from __future__ import annotations

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
