"""Which nodes have restarted, by what they say of how long they have been running."""

from __future__ import annotations

import time

from smoke import management
from smoke.deployment import Deployment, Node

# What a node says of itself is up to 5 s old (collect_statistics_interval); in milliseconds, and some more.
STALE = 6000


class Uptimes:
    """Remembers for how long nodes have been running now.

    Args:
        deployment: where.
        nodes: which; all, if none are named.
    """

    def __init__(self, deployment: Deployment, *nodes: Node) -> None:
        self._deployment = deployment
        self._nodes = nodes or deployment.nodes
        self._asked = time.monotonic()
        self._before = {node.name: management.uptime(deployment, node) for node in self._nodes}

    def restarted(self) -> set[str]:
        """Return the names of the nodes that have not been running ever since."""
        now = {node.name: management.uptime(self._deployment, node) for node in self._nodes}
        elapsed = (time.monotonic() - self._asked) * 1000
        return {name for name, before in self._before.items() if now[name] < before + elapsed - STALE}
