"""What the balancer says of its servers: the CSV of its statistics page (HAProxy management guide, 9.1)."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from urllib.request import urlopen

from smoke.deployment import Balancer, Deployment


@dataclass(frozen=True, slots=True)
class Server:
    """A server line.

    Attributes:
        name: of the server.
        status: the first word of its status: UP, DOWN, MAINT, DRAIN, NOLB, no check.
        sessions: connections given to it since the last reload.
        backup: it gets connections only while every other one is down.
        agent: the last word of the agent on its host, as in "via agent : up (sees 3 of 3 nodes)", if there is one.
    """

    name: str
    status: str
    sessions: int
    backup: bool
    agent: str


def servers(balancer: Balancer, *, timeout: float = 5) -> dict[str, Server]:
    """Return the servers of the AMQP section by name, without the last resorts: those are the same nodes once more.

    Args:
        balancer: which one.
        timeout: seconds that it has to answer.

    Raises:
        OSError: the statistics page does not answer.
    """
    with urlopen(f"{balancer.stats_url}/stats;csv", timeout=timeout) as answer:  # noqa: S310 - the inventory says http
        lines = answer.read().decode().removeprefix("# ").splitlines()
    return {
        row["svname"]: Server(
            name=row["svname"],
            status=row["status"].split(" ")[0] if row["status"] != "no check" else row["status"],
            sessions=int(row["stot"]),
            backup=row["bck"] == "1",
            agent=row["last_agt"],
        )
        for row in csv.DictReader(lines)
        if row["pxname"] == balancer.section
        and row["svname"] not in ("FRONTEND", "BACKEND")
        and ":" not in row["svname"]
    }


def statuses(balancer: Balancer, *, timeout: float = 5) -> dict[str, str]:
    """Return the status of each server by name; see servers()."""
    return {name: server.status for name, server in servers(balancer, timeout=timeout).items()}


def sessions(deployment: Deployment) -> dict[str, int]:
    """Return how many connections each server was given by all balancers together, by name."""
    given: Counter[str] = Counter()
    for balancer in deployment.balancers:
        given.update({name: server.sessions for name, server in servers(balancer).items()})
    return dict(given)
