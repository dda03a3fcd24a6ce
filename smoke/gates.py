"""The gates: the longest silence that clients may feel, in seconds, for each fault.

They are promised for the median of several runs, for deployments with a virtual address and the profile "lan"; the
figures of such runs are in docs/benchmarks.md.
"""

from __future__ import annotations

from smoke.deployment import Deployment

# Single runs may take so many times what is promised for the median: one also draws from the clients' backoff, and
# finds the checks of the balancers at their worst moment.
SPREAD = 2
# And so much longer, in seconds, for each tie of an election: both members that lose their leader in the same moment
# stand for election within 0.1 s. Where each has voted for itself they stand again within 0.6 s, and after another tie
# within 1.1 s (ra_server_proc.erl of Ra 2.2 and 3.1, with rabbitmq_failure_detector_poll 1000).
TIE = 1.1

STOPPED = 0.3
KILLED = 1.0
KILLED_ELSEWHERE = 0.7
ROLLED = 0.5
HOST_LOST = 4.0
FROZEN = 4.0
# A node whose host goes on acknowledging, where Mnesia keeps the metadata (before 4.3): nothing can be declared until
# its peers have given it up, after up to 12.5 s (net_ticktime and a quarter of it).
FROZEN_MNESIA = 14.0
CUT_OFF = 4.0
BALANCER_LOST = 1.0
# The check of keepalived has to time out first.
BALANCER_FROZEN = 4.0
# From the start of the hosts to the first confirm.
ALL_LOST = 30.0


def promised(deployment: Deployment, gate: float | None, *, ties: int = 0) -> float | None:
    """Return the longest silence, in seconds, that one run may have, where the deployment promises anything.

    Args:
        deployment: where.
        gate: what is promised for the median, in seconds.
        ties: of the elections that it took; each may add to it.
    """
    lan = all(node.settings.get("rabbitmq_profile") == "lan" for node in deployment.nodes)
    return max(gate * SPREAD, gate + ties * TIE) if gate is not None and lan and deployment.vip else None
