"""Which nodes have restarted, by what they say of how long they have been running."""

from __future__ import annotations

import time

from smoke import management
from smoke.deployment import Deployment, Node

# How often a node notes its uptime, and how often the management plugin takes over what was noted
# (collect_statistics_interval, 5 s), in milliseconds, and some more. So what it says is up to two of these old.
INTERVAL = 6000


class Uptimes:
    """Remembers for how long nodes have been running now.

    Args:
        deployment: where.
        nodes: which; all, if none are named.
    """

    def __init__(self, deployment: Deployment, *nodes: Node) -> None:
        self._deployment = deployment
        self._nodes = nodes or deployment.nodes
        # When it answered: a node that has just started answers for seconds before it knows its uptime.
        self._before = {node.name: (management.uptime(deployment, node), time.monotonic()) for node in self._nodes}

    def restarted(self) -> set[str]:
        """Return the names of the nodes that have not been running ever since."""
        return {node.name for node in self._nodes if self._has_restarted(node)}

    def _has_restarted(self, node: Node) -> bool:
        before, answered = self._before[node.name]
        begin = time.monotonic()
        while True:
            asked = time.monotonic()
            elapsed = (asked - answered) * 1000
            now = management.uptime(self._deployment, node)
            if now >= before + elapsed - INTERVAL:
                return False
            # Else it may be an old figure, of which there is a newer one soon.
            if now + 2 * INTERVAL < elapsed or (asked - begin) * 1000 > INTERVAL:
                return True
            time.sleep(0.5)
