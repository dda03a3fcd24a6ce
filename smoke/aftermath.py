"""What has to be true of a deployment after a fault, whatever its clients felt of it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import quote

import pika

from smoke import balancer_stats, management
from smoke.deployment import Balancer, Deployment, Node
from smoke.judge import Verdict
from smoke.partition import autoheals, healing
from smoke.topology import Topology
from smoke.waiting import eventually

# How long a broker may say what is no longer true, in seconds: a node that led a queue while it was cut off goes on
# with its last figures until it looks for such (core_metrics_gc_interval, 120 s), and all are collected every 5 s.
PATIENCE = 150.0
# How long a partition may take to end, in seconds: autoheal asks those that did not hear it again after 60 s.
HEALING = 120.0
# RabbitMQ gives a message up after so many deliveries in vain, by default and since 4.0 ...
DELIVERY_LIMIT = 20
# ... and nothing that happens to a cluster may bring an innocent message nearer to it than this.
MARGIN = 5


def assert_whole(deployment: Deployment, within: float = HEALING) -> None:
    """Insist that every node sees every node running and no partition, and every balancer every server UP.

    And that nodes go by the net_ticktime they were given, which they take over from peers (rabbit_misc:rpc_call/5), and
    that agents count no member that is gone: they would give up nodes that see the rest of their cluster.
    """
    for node in deployment.nodes:
        eventually(partial(_complete, deployment, node), within=within, what=f"{node.name} sees all nodes run")
    for balancer in deployment.balancers:
        eventually(partial(_all_up, deployment, balancer), within=within, what=f"{balancer.name} sees all servers UP")


def assert_healed(deployment: Deployment) -> None:
    """Insist that nothing of the handling of a partition is left to do, where "autoheal" handles them: before 4.3.

    A cluster looks whole before that, and what happens to it then may leave a partition for good (docs/failover.md).
    """
    eventually(partial(_healed, deployment), within=HEALING, every=1, what="every node has done with healing")


def assert_no_orphans(deployment: Deployment, topology: Topology, *, within: float = PATIENCE) -> None:
    """Insist that no message of a queue is unacknowledged: no channel has one in hand, so nobody would hand it out.

    To be asked when everything has been processed.
    """
    eventually(
        partial(_owned, deployment, topology), within=within, every=1, what=f"{topology.queue} has no orphaned messages"
    )


def assert_replicated(deployment: Deployment, *, within: float = PATIENCE) -> None:
    """Insist that every quorum queue has a leader and all its members, and that they have caught up.

    Each node is asked, since one that was away may still believe what was true before. What each member is and how
    far it has got, only newer brokers say through their API; 3.10 names a leader that may not be one any more.
    """
    for node in deployment.nodes:
        eventually(
            partial(_replicated, deployment, node),
            within=within,
            every=1,
            what=f"every quorum queue has a leader and all members, as seen from {node.name}",
        )


def assert_clear_of_delivery_limit(verdict: Verdict, limit: int = DELIVERY_LIMIT) -> None:
    """Insist that a fault brought no message near the number of deliveries at which a queue gives it up."""
    count = verdict.delivery_count
    assert count <= limit - MARGIN, f"a message came with delivery count {count}; queues give it up at {limit}"


def connections_given(deployment: Deployment, count: int) -> dict[str, int]:
    """Open so many connections through the balancer, in a row, and return how many each server was given.

    Raises:
        AMQPError: one of them could not be opened.
    """
    endpoint = deployment.endpoint
    parameters = pika.ConnectionParameters(
        endpoint.host, endpoint.port, credentials=pika.PlainCredentials(deployment.user, deployment.password)
    )
    before = balancer_stats.sessions(deployment)
    with ExitStack() as connections:
        for _ in range(count):
            connections.enter_context(pika.BlockingConnection(parameters))
        after = balancer_stats.sessions(deployment)
    return {name: after[name] - before.get(name, 0) for name in after}


def assert_avoided(deployment: Deployment, *bad: Node) -> None:
    """Insist that no new connection lands on nodes that are not fit. To be called once the check must have seen it."""
    count = 4 * len(deployment.nodes)
    given = connections_given(deployment, count)
    landed = {node.name: given[node.name] for node in bad if given[node.name]}
    assert not landed, f"of {count} new connections some landed on a server that is not fit: {landed}"
    assert sum(given.values()) >= count, f"{count} connections were opened, but the balancer gave only {given}"


def _complete(deployment: Deployment, node: Node) -> bool:
    members = management.get(deployment, node, "nodes")
    peers = {peer.nodename: peer for peer in deployment.peers(node)}
    missing = peers.keys() ^ {member["name"] for member in members}
    assert not missing, f"the members are {[member['name'] for member in members]}"
    unwell = {
        member["name"]: {name: member.get(name) for name in ("running", "partitions")}
        for member in members
        if not member.get("running") or member.get("partitions")
    }
    assert not unwell, f"{unwell}"
    for member in members:
        given = int(str(peers[member["name"]].settings["rabbitmq_net_ticktime"]))
        # Not known in the first seconds of a node.
        taken = member.get("net_ticktime", given)
        assert taken == given, f"{member['name']} goes by a net_ticktime of {taken} s instead of {given} s"
    return True


def _healed(deployment: Deployment) -> bool:
    # Both are asked of a node that autoheal may just be restarting.
    states = healing(deployment) if autoheals(deployment) else ""
    assert not states, states
    return True


def _all_up(deployment: Deployment, balancer: Balancer) -> bool:
    servers = balancer_stats.servers(balancer)
    seen = {name: server.status for name, server in servers.items()}
    assert seen == {node.name: "UP" for node in deployment.nodes}, seen
    for node in deployment.nodes:
        counted = re.search(r"sees \d+ of (\d+) nodes", servers[node.name].agent)
        members = len(deployment.peers(node))
        assert counted is None or int(counted[1]) == members, (
            f"the agent of {node.name} counts {counted[1]} nodes where there are {members}: site.yml tells it"
        )
    return True


def _owned(deployment: Deployment, topology: Topology) -> bool:
    node = deployment.nodes[0]
    queue = management.queue(deployment, node, topology)
    unacknowledged = queue.get("messages_unacknowledged")
    # 3.10 says [] of a channel that goes.
    details = [
        consumer["channel_details"] for consumer in queue.get("consumer_details", ()) if consumer["channel_details"]
    ]
    channels = {detail["name"] for detail in details if detail.get("name")}
    in_hand = sum(_unacknowledged(deployment, node, channel) for channel in channels)
    assert (unacknowledged, in_hand) == (0, 0), (
        f"{unacknowledged} messages of {topology.queue} are unacknowledged, and its channels hold {in_hand}"
    )
    return True


def _unacknowledged(deployment: Deployment, node: Node, channel: str) -> int:
    return int(
        management.get(deployment, node, f"channels/{quote(channel, safe='')}").get("messages_unacknowledged", 0)
    )


def _replicated(deployment: Deployment, node: Node) -> bool:
    for queue in management.get(deployment, node, "queues"):
        if queue.get("type") != "quorum":
            continue
        name, members, online = queue["name"], set(queue.get("members", ())), set(queue.get("online", ()))
        assert queue.get("leader") in online, f"{name} has no leader: {queue.get('leader')!r}"
        assert members == online, f"{name} misses {sorted(members - online)}"
        if states := management.members(deployment, node, queue):
            # Queues of others may be at work: what the leader has by now, a moment later all have.
            _assert_caught_up(name, states, management.members(deployment, node, queue))
    return True


def _assert_caught_up(name: str, earlier: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    reached = [member["Last Log Index"] for member in earlier if member.get("Raft State") == "leader"]
    assert len(reached) == 1, f"{name} has no leader: {_states(earlier)}"
    # A member that does not answer has no number there, or no such field.
    late = [
        member for member in now if not isinstance(index := member.get("Last Log Index"), int) or index < reached[0]
    ]
    terms = {member.get("Term") for member in now}
    assert not late, f"the members of {name} have not caught up with each other: {_states(now)}"
    assert len(terms) == 1, f"the members of {name} follow different leaders: {_states(now)}"


def _states(members: list[dict[str, Any]]) -> list[list[Any]]:
    return [
        [member.get(field) for field in ("Node Name", "Raft State", "Term", "Last Log Index")] for member in members
    ]
