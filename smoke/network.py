"""Break the network of a host, inside the host: nftables, in tables that a timer removes if nobody else does.

SSH is let through, since the break is healed over it; everything that brokers, balancers and clients say is cut.

What is dropped of what the host sends does leave it, for a station that is not there (a locally administered address):
dropped on its way out, its own TCP would be told, which no broken network does, and goes on differently then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from smoke import journal
from smoke.deployment import Balancer, Deployment, Node

TABLES = ("inet smoke_cut", "netdev smoke_cut")
LIST = "; ".join(f"nft list table {table}" for table in TABLES)
DELETE = "; ".join(f"nft delete table {table}" for table in TABLES)
# Where in a host a rule applies: to what comes in, to what its TCP sends, to what leaves it.
IN = (TABLES[0], "in", "filter hook input priority -200")
OUT = (TABLES[0], "out", "filter hook output priority -200")
AWAY = (TABLES[1], "away", "filter hook egress device $device priority 0")
NOBODY = "ether daddr set 02:ff:ff:ff:ff:ff"
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
    chosen = (f"numgen random mod 100 < {share} " if share < 100 else "") + (
        "counter" if verdict == DROP else "meta l4proto tcp counter"
    )
    rules = _chain(IN, "iifname lo accept", "tcp dport 22 accept", f"ip saddr {addresses} {chosen} {verdict}")
    if outgoing and verdict == DROP:
        rules += _chain(AWAY, "tcp sport 22 accept", f"ip daddr {addresses} {chosen} {NOBODY}")
    elif outgoing:
        # What resets a connection has to get out itself.
        but = ("oifname lo accept", "tcp sport 22 accept", "tcp flags rst accept")
        rules += _chain(OUT, *but, f"ip daddr {addresses} {chosen} {verdict}")
    timer = f"systemd-run --collect --quiet --unit=smoke-cut --on-active={LONGEST} sh -c '{DELETE}'"
    whom = ", ".join(peer.name for peer in peers) or "everyone"
    how = "is cut off from" if share == 100 else f"loses {share} % of the packets of"
    with journal.fault(f"{host.name} {how} {whom}"):
        deployment.run(host, f'{_device(host)}; {timer} && nft "{"; ".join(rules)}"', what="cut off")
        try:
            yield
        finally:
            heal = f"{LIST}; {DELETE}; systemctl stop smoke-cut.timer"
            counted = deployment.run(host, heal, what="reconnect")
    _assert_met(host, counted)


def blink(deployment: Deployment, host: Node | Balancer, milliseconds: int, times: int) -> None:
    """Cut a host off from everyone for a moment, so many times, three seconds apart.

    Any closer, and they fall into step with the checks of the balancers, whose bad ones take about a second.

    Raises:
        AssertionError: no packet was met, so it was no cut.
    """
    rules = [*_chain(IN, "iifname lo accept", "counter drop"), *_chain(AWAY, f"counter {NOBODY}")]
    once = f'nft "{"; ".join(rules)}"; sleep {milliseconds / 1000}; {LIST}; {DELETE}; sleep 3'
    with journal.fault(f"{host.name} is cut off for {milliseconds} ms, {times} times"):
        # Not by the shell that SSH holds: its answers are cut as well, but it goes on.
        command = f"{_device(host)}; for i in $(seq {times}); do {once}; done"
        counted = deployment.run(host, command, what=f"{milliseconds} ms blips")
    _assert_met(host, counted)


def _device(host: Node | Balancer) -> str:
    """Return what finds out, in the shell of a host, by which device it is in the network."""
    return f"device=$(ip -4 -o address show to {host.address} | cut -d ' ' -f 2)"


def _chain(where: tuple[str, str, str], *rules: str) -> list[str]:
    """Return what nft does to have these rules there. All in one call, it is done as a whole or not at all."""
    table, name, hook = where
    return [
        f"add table {table}",
        f"add chain {table} {name} {{ type {hook}; }}",
        *(f"add rule {table} {name} {rule}" for rule in rules),
    ]


def _assert_met(host: Node | Balancer, counted: str) -> None:
    packets = sum(int(number) for number in re.findall(r"counter packets (\d+)", counted))
    assert packets > 0, f"the cut of {host.name} met no packet: the fault was none"
