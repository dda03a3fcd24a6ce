"""What a deployment is while nothing is broken."""

from __future__ import annotations

from functools import partial

import pika
import pytest

from smoke import balancer_stats, management
from smoke.aftermath import connections_given
from smoke.deployment import Deployment
from smoke.waiting import eventually


def test_every_node_reports_the_same_members_all_running(deployment: Deployment) -> None:
    for node in deployment.nodes:
        members = {peer.nodename: True for peer in deployment.peers(node)}
        assert management.running(deployment, node) == members, f"as seen from {node.name}"


def test_the_management_interface_of_every_node_has_what_it_opens_with(deployment: Deployment) -> None:
    """The overview says more than any other answer, among it the options of every listener, which are not all JSON."""
    for node in deployment.nodes:
        # One that has just started fails to answer for some seconds.
        eventually(
            partial(management.get, deployment, node, "overview"),
            within=10,
            what=f"{node.name} answers with its overview",
        )


def test_the_balancer_reports_every_server_up(deployment: Deployment) -> None:
    up = {node.name: "UP" for node in deployment.nodes}

    for balancer in deployment.balancers:
        assert balancer_stats.statuses(balancer) == up, f"{balancer.stats_url}/stats"


def test_connections_opened_in_a_row_land_evenly_on_the_servers(deployment: Deployment) -> None:
    rounds = 4
    pool = {node.name for node in deployment.nodes} - set(deployment.balancer.backup_servers)

    given = connections_given(deployment, rounds * len(pool))

    # Connections of others may come between them, and are given out in turn like ours.
    assert all(given[name] >= rounds for name in pool), given
    assert all(given[name] == 0 for name in given.keys() - pool), given


def test_wrong_credentials_are_refused(deployment: Deployment) -> None:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        connect(deployment, password="not the password")  # noqa: S106 - that is the point


def connect(deployment: Deployment, password: str | None = None) -> pika.BlockingConnection:
    """Open a connection through the balancer."""
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            deployment.endpoint.host,
            deployment.endpoint.port,
            credentials=pika.PlainCredentials(deployment.user, password or deployment.password),
        )
    )
