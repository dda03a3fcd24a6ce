"""How often the members of a quorum queue voted in vain, by the terms that they have been through."""

from __future__ import annotations

from smoke import management
from smoke.deployment import Deployment, Node
from smoke.topology import Topology
from smoke.waiting import eventually

# Of the elections of brokers that do not name their term (3.10): the most that was seen after an orderly stop.
UNKNOWN = 2


class Terms:
    """Remembers the term of a queue, which each candidate raises by one (Raft, section 5.2).

    Args:
        deployment: where.
        topology: which queue.
        node: which node to ask, one that stays.
    """

    def __init__(self, deployment: Deployment, topology: Topology, node: Node) -> None:
        self._deployment = deployment
        self._topology = topology
        self._node = node
        self._before = self._term()

    def ties(self) -> int:
        """Return the terms that ended without a leader since then, if at most one leader was lost.

        To be asked when all nodes are back: RabbitMQ 4.0 answers with an error while a member is away.

        Raises:
            AssertionError: it does not say so within 30 s.
        """
        return max(0, self._term() - self._before - 1) if self._before else UNKNOWN

    def _term(self) -> int:
        """Return the highest term that a member is in, 0 if none says so."""
        return max(eventually(self._terms, within=30, what=f"the members of {self._topology.queue} name their terms"))

    def _terms(self) -> list[int]:
        queue = management.queue(self._deployment, self._node, self._topology)
        members = management.members(self._deployment, self._node, queue)
        # A member that does not run has no number there, or no such field.
        return [0, *(term for member in members if isinstance(term := member.get("Term"), int))]
