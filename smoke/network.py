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
    share: int = 100,
) -> Iterator[None]:
    """Cut a host off during the block.

    Args:
        deployment: where.
        host: the one that is cut off; it must be Linux with nftables and systemd.
        peers: from whom; none means everyone.
        verdict: DROP (silence) or REJECT (a reset for every TCP packet).
        outgoing: cut both ways; otherwise the host still speaks, and hears nothing.
        share: of the packets that are cut, percent; they are chosen by chance.

    Raises:
        AssertionError: the cut met no packet, so it was none.
    """
    addresses = f"{{ {', '.join(peer.address for peer in peers)} }}" if peers else "0.0.0.0/0"
    chance = f"numgen random mod 100 < {share} " if share < 100 else ""
    what = f"{chance}meta l4proto tcp counter {verdict}" if verdict == REJECT else f"{chance}counter {verdict}"
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
    how = "is cut off from" if share == 100 else f"loses {share} % of the packets of"
    with journal.fault(f"{host.name} {how} {whom}"):
        deployment.run(host, f"{timer} && nft -f - << 'RULES'\n{script}\nRULES", what="cut off")
        try:
            yield
        finally:
            heal = f"nft list table {TABLE} && nft delete table {TABLE}; systemctl stop smoke-cut.timer"
            counted = deployment.run(host, heal, what="reconnect")
    _assert_met(host, counted)


def blink(deployment: Deployment, host: Node | Balancer, milliseconds: int, times: int) -> None:
    """Cut a host off from everyone for a moment, so many times, three seconds apart.

    Any closer, and they fall into step with the checks of the balancers, whose bad ones take about a second.

    Raises:
        AssertionError: no packet was met, so it was no cut.
    """
    drop = "; ".join(
        f"add chain {TABLE} {hook} {{ type filter hook {hook}put priority -200; }}; "
        f"add rule {TABLE} {hook} {name} lo accept; add rule {TABLE} {hook} counter drop"
        for hook, name in (("in", "iifname"), ("out", "oifname"))
    )
    once = (
        f"nft 'add table {TABLE}; {drop}'; sleep {milliseconds / 1000}; "
        f"nft list table {TABLE}; nft delete table {TABLE}; sleep 3"
    )
    with journal.fault(f"{host.name} is cut off for {milliseconds} ms, {times} times"):
        # Not by the shell that SSH holds: its answers are cut as well, but it goes on.
        counted = deployment.run(host, f"for i in $(seq {times}); do {once}; done", what=f"{milliseconds} ms blips")
    _assert_met(host, counted)


def _assert_met(host: Node | Balancer, counted: str) -> None:
    packets = sum(int(number) for number in re.findall(r"counter packets (\d+)", counted))
    assert packets > 0, f"the cut of {host.name} met no packet: the fault was none"
