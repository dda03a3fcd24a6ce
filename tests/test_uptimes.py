"""Who has restarted is told from figures that are up to ten seconds old."""

from types import SimpleNamespace
from typing import cast

import pytest

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.uptimes import Uptimes

NODE = Node("a", "rabbit@a", "cluster", "127.0.0.1", 1, 2)


class Host:
    """A node that notes its uptime every five seconds, and shows what it noted some time later.

    Args:
        monkeypatch: puts it in the place of the real one.
        started: when the node started, in seconds; the clock begins at 100.
        late: how much later it shows what it noted, in seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, started: float, late: float) -> None:
        self.clock, self.started, self.late = 100.0, started, late
        monkeypatch.setattr(management, "uptime", lambda *_: self._uptime())
        monkeypatch.setattr("smoke.uptimes.time", SimpleNamespace(monotonic=lambda: self.clock, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def _uptime(self) -> int:
        first = self.started + 5 + self.late
        self.clock = max(self.clock, first)
        return int((5 + (self.clock - first) // 5 * 5) * 1000)


@pytest.mark.parametrize("started", [0, 91, 94.9, 98], ids="started at {}".format)
@pytest.mark.parametrize("later", [20, 22.4, 24.9, 80])
@pytest.mark.parametrize(("late", "late_then"), [(0, 0), (4.9, 4.9), (0, 4.9), (4.9, 0)])
class TestRestarted:
    """Whatever the age of the figures is, before and after."""

    def test_a_node_that_goes_on_has_not_restarted(
        self, started: float, later: float, late: float, late_then: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Host(monkeypatch, started, late)
        seen = Uptimes(cast(Deployment, SimpleNamespace(nodes=(NODE,))))
        host.clock += later
        host.late = late_then
        assert seen.restarted() == set()

    def test_a_node_that_was_started_again_has_restarted(
        self, started: float, later: float, late: float, late_then: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Host(monkeypatch, started, late)
        seen = Uptimes(cast(Deployment, SimpleNamespace(nodes=(NODE,))))
        host.started, host.late = host.clock + 3, late_then
        host.clock += later
        assert seen.restarted() == {"a"}
