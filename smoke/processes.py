"""Which nodes have restarted, by the process of the operating system that each of them is."""

from __future__ import annotations

from smoke import management
from smoke.deployment import Deployment, Node


class Processes:
    """Remembers which process each node is now.

    A host counts its process ids up, so a node has the one that it had before only if nothing started it, or if its
    host was started again or has counted once round (pid_max, proc_sys_kernel(5)). For how long it has been running
    would be a worse witness: the management interface says what was true up to ten seconds ago.

    Args:
        deployment: where.
        nodes: which; all, if none are named.
    """

    def __init__(self, deployment: Deployment, *nodes: Node) -> None:
        self._deployment = deployment
        self._nodes = nodes or deployment.nodes
        self._before = self._now()

    def restarted(self) -> set[str]:
        """Return the names of the nodes that are another process than before."""
        now = self._now()
        return {name for name, process in self._before.items() if now[name] != process}

    def _now(self) -> dict[str, str]:
        return {node.name: management.process(self._deployment, node) for node in self._nodes}
