"""What the nodes say of themselves and of each other: RabbitMQ's management HTTP API."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from smoke.deployment import Deployment, Node
from smoke.topology import Topology
from smoke.waiting import eventually

# How long a node may take to answer, in seconds.
PATIENCE = 10.0
# How long it may take to accept a connection, in seconds.
REACHABLE = 2.0


def assert_reachable(deployment: Deployment) -> None:
    """Insist that a node lets us connect: of a deployment that is not there every test would wait for what cannot come.

    Raises:
        AssertionError: none does; the message says why, and what helps.
    """
    refusals = []
    for node in deployment.nodes:
        try:
            with socket.create_connection((node.address, node.management_port), timeout=REACHABLE):
                return
        except OSError as error:
            refusals.append(f"{node.name} ({node.address}:{node.management_port}): {error}")
    raise AssertionError(
        f"no node of {deployment.pool} can be reached: {'; '.join(refusals)}. Deploy them (playbooks/site.yml), start "
        "them (playbooks/start.yml), or let this machine in (firewall_admin_networks)"
    )


def get(deployment: Deployment, node: Node, path: str) -> Any:
    """Ask one node.

    Raises:
        OSError: it does not answer, refuses, or goes away in the middle of its answer.
    """
    try:
        return json.loads(_request(deployment, node, "GET", path))
    except (HTTPException, ValueError) as error:
        raise OSError(f"{node.name} did not answer to the end: {error!r}") from error


def delete(deployment: Deployment, node: Node, path: str, *, within: float = PATIENCE) -> None:
    """Delete something through one node, which may take so many seconds for it.

    Raises:
        OSError: it does not answer, or refuses.
    """
    _request(deployment, node, "DELETE", path, within)


def running(deployment: Deployment, node: Node) -> dict[str, bool]:
    """Return the members of the cluster as one node sees them, and whether they run."""
    return {member["name"]: bool(member.get("running")) for member in get(deployment, node, "nodes")}


def enabled(deployment: Deployment, node: Node, flag: str) -> bool:
    """Return whether a feature flag is enabled."""
    flags = get(deployment, node, "feature-flags")
    return any(known["name"] == flag and known["state"] == "enabled" for known in flags)


def process(deployment: Deployment, node: Node) -> str:
    """Return the id of the process that a node is, as it says itself.

    Raises:
        AssertionError: it does not say so within 30 s.
    """
    path = f"nodes/{node.nodename}"
    what = f"{node.name} says which process it is"
    return str(eventually(lambda: get(deployment, node, path).get("os_pid"), within=30, what=what))


def queue(deployment: Deployment, node: Node, topology: Topology) -> dict[str, Any]:
    """Return the queue of a topology as one node sees it."""
    found = get(deployment, node, _queue(topology.queue))
    assert isinstance(found, dict)
    return found


def leader(deployment: Deployment, topology: Topology) -> Node:
    """Return the node that leads a quorum queue, or is the home of a classic one."""
    found = queue(deployment, deployment.nodes[0], topology)
    return deployment.node(found.get("leader") or found["node"])


def members(deployment: Deployment, node: Node, queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what each member of a quorum queue, as queue() returns it, says of itself; nothing with 3.10."""
    path = "/".join(quote(queue[part], safe="") for part in ("vhost", "name"))
    try:
        found = get(deployment, node, f"queues/quorum/{path}/status")
    except HTTPError as error:
        # RabbitMQ 3.10 does not know the question, and takes it for a bad path.
        if error.code in (400, 404):
            return []
        raise
    assert isinstance(found, list), found
    return found


def consumer_node(deployment: Deployment, topology: Topology) -> Node | None:
    """Return the node to which the consumer of a queue is connected, None if there is no consumer."""
    for consumer in get(deployment, deployment.nodes[0], "consumers/%2F"):
        # Empty for a moment after the consumer has come.
        if consumer["queue"]["name"] == topology.queue and consumer["channel_details"]:
            return deployment.node(consumer["channel_details"]["node"])
    return None


def connections(deployment: Deployment, topology: Topology, node: Node | None = None) -> Iterable[dict[str, Any]]:
    """Return the connections of our clients that work with a queue, as a node, or else the first, sees them."""
    for connection in get(deployment, node or deployment.nodes[0], "connections"):
        name = connection.get("client_properties", {}).get("connection_name", "")
        if f" {topology.queue} " in name:
            yield connection


def close_connection(deployment: Deployment, name: str) -> None:
    """Close a connection, as an operator does."""
    delete(deployment, deployment.nodes[0], f"connections/{quote(name, safe='')}")


def close_connections(deployment: Deployment, user: str) -> None:
    """Close all connections of a user at once, whoever has them."""
    # Since RabbitMQ 3.10.8 or a little earlier. It closes one after the other, and answers after the last.
    delete(deployment, deployment.nodes[0], f"connections/username/{quote(user, safe='')}", within=60)


def unbind(deployment: Deployment, topology: Topology) -> None:
    """Remove every binding between the exchange and the queue of a topology."""
    node = deployment.nodes[0]
    path = f"bindings/%2F/e/{quote(topology.exchange, safe='')}/q/{quote(topology.queue, safe='')}"
    for binding in get(deployment, node, path):
        delete(deployment, node, f"{path}/{quote(binding['properties_key'], safe='')}")


def remove(deployment: Deployment, topology: Topology) -> None:
    """Remove the queue and the exchange of a topology."""
    node = deployment.nodes[0]
    delete(deployment, node, _queue(topology.queue))
    delete(deployment, node, f"exchanges/%2F/{quote(topology.exchange, safe='')}")


def remove_queues(deployment: Deployment, node: Node, names: re.Pattern[str]) -> None:
    """Remove the queues of a node's cluster whose names are such."""
    for queue in get(deployment, node, "queues/%2F?columns=name"):
        if names.fullmatch(queue["name"]):
            delete(deployment, node, _queue(queue["name"]))


def _queue(name: str) -> str:
    return f"queues/%2F/{quote(name, safe='')}"


def _request(deployment: Deployment, node: Node, method: str, path: str, within: float = PATIENCE) -> bytes:
    login = f"{deployment.management_user}:{deployment.management_password}"
    credentials = base64.b64encode(login.encode()).decode()
    request = Request(
        f"http://{node.address}:{node.management_port}/api/{path}",
        method=method,
        headers={"Authorization": f"Basic {credentials}"},
    )
    with urlopen(request, timeout=within) as answer:  # noqa: S310 - see above
        body: bytes = answer.read()
        return body
