"""Who has restarted is told from figures that are up to five seconds old."""

from types import SimpleNamespace
from typing import cast

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.uptimes import Uptimes

NODE = Node("a", "rabbit@a", "cluster", "127.0.0.1", 1, 2)


@pytest.mark.parametrize(
    ("before", "now", "restarted"),
    [(100_000, 130_000, False), (100_000, 125_000, False), (2_000, 28_000, False), (100_000, 20_000, True)],
    ids=["exact", "old figure", "young node, old figure", "restarted"],
)
def test_a_node_has_restarted_if_it_has_not_run_ever_since(
    before: int, now: int, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, clock = iter([before, now]), iter([10.0, 40.0])
    monkeypatch.setattr(management, "uptime", lambda *_: next(said))
    monkeypatch.setattr("smoke.uptimes.time", SimpleNamespace(monotonic=lambda: next(clock)))
    seen = Uptimes(cast(Deployment, SimpleNamespace(nodes=(NODE,))))
    assert seen.restarted() == ({"a"} if restarted else set())
