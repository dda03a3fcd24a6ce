"""Break the network of a host, inside the host: nftables, in a table that a timer removes if nobody else does.

SSH is let through, since the break is healed over it; everything that brokers, balancers and clients say is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from smoke import journal
from smoke.deployment import Balancer, Deployment, Node

TABLE = "inet smoke_cut"
# After so many seconds a cut ends by itself, so that a suite that was killed leaves no broken host.
LONGEST = 120

DROP = "drop"
REJECT = "reject with tcp reset"


@contextmanager
def cut(
    deployment: Deployment,
    host: Node | Balancer,
    *,
    peers: Sequence[Node | Balancer] = (),
    verdict: str = DROP,
    outgoing: bool = True,
) -> Iterator[None]:
    """Cut a host off during the block.

    Args:
        deployment: where.
        host: the one that is cut off; it must be Linux with nftables and systemd.
        peers: from whom; none means everyone.
        verdict: DROP (silence) or REJECT (a reset for every TCP packet).
        outgoing: cut both ways; otherwise the host still speaks, and hears nothing.

    Raises:
        AssertionError: the cut met no packet, so it was none.
    """
    addresses = f"{{ {', '.join(peer.address for peer in peers)} }}" if peers else "0.0.0.0/0"
    what = f"meta l4proto tcp counter {verdict}" if verdict == REJECT else f"counter {verdict}"
    rules = [
        f"add table {TABLE}",
        f"add chain {TABLE} in {{ type filter hook input priority -200; }}",
        f"add rule {TABLE} in iifname lo accept",
        f"add rule {TABLE} in tcp dport 22 accept",
        f"add rule {TABLE} in ip saddr {addresses} {what}",
        f"add chain {TABLE} out {{ type filter hook output priority -200; }}",
        f"add rule {TABLE} out oifname lo accept",
        f"add rule {TABLE} out tcp sport 22 accept",
        *([f"add rule {TABLE} out ip daddr {addresses} {what}"] if outgoing else []),
    ]
    timer = f"systemd-run --collect --quiet --unit=smoke-cut --on-active={LONGEST} nft delete table {TABLE}"
    script = "\n".join(rules)
    whom = ", ".join(peer.name for peer in peers) or "everyone"
    with journal.fault(f"{host.name} is cut off from {whom}"):
        deployment.run(host, f"{timer} && nft -f - << 'RULES'\n{script}\nRULES", what="cut off")
        try:
            yield
        finally:
            heal = f"nft list table {TABLE} && nft delete table {TABLE}; systemctl stop smoke-cut.timer"
            counted = deployment.run(host, heal, what="reconnect")
    packets = sum(int(number) for number in re.findall(r"counter packets (\d+)", counted))
    assert packets > 0, f"the cut of {host.name} met no packet: the fault was none"
