"""Partitions before RabbitMQ 4.3, that Mnesia sees and RabbitMQ's autoheal does not always end (docs/failover.md)."""

from __future__ import annotations

import re
from collections.abc import Callable

from smoke import journal, management
from smoke.deployment import Deployment, Node, PlaybookError


def recovered(deployment: Deployment, *checks: Callable[[Deployment], None]) -> None:
    """Insist on checks, which wait for what they want; a partition that autoheal left meanwhile is ended by hand.

    That is done as docs/failover.md tells operators to, and told in the report: it is no failure of the deployment,
    which cannot keep RabbitMQ from it, but whoever reads that the cluster recovered has to know that it had help.

    Raises:
        AssertionError: a check failed, and there is no partition or it was not that.
    """
    for check in checks:
        try:
            check(deployment)
        except AssertionError as error:
            apart = left_apart(deployment)
            if not apart:
                raise
            deployment.stop(*apart)
            deployment.start(*apart)
            check(deployment)
            names, seen = ", ".join(node.name for node in apart), str(error).partition("\n")[0]
            journal.remark(f"autoheal left a partition ({seen}); stop.yml and start.yml of {names} ended it")


def left_apart(deployment: Deployment) -> tuple[Node, ...]:
    """Return the nodes whose restart ends a partition: the smaller side, and who is not done with healing.

    None where something else handles partitions, or where there is none, or where a node that is asked is away.
    """
    try:
        if not autoheals(deployment):
            return ()
        members = management.get(deployment, deployment.nodes[0], "nodes")
    except OSError:
        return ()
    pairs = {frozenset((member["name"], other)) for member in members for other in member.get("partitions") or ()}
    together: list[Node] = []
    # Who has the fewest that it is apart from stays, and everyone that is apart from none of those who stay.
    for node in sorted(deployment.nodes, key=lambda node: sum(node.nodename in pair for pair in pairs)):
        if all(frozenset((node.nodename, other.nodename)) not in pairs for other in together):
            together.append(node)
    try:
        states = healing(deployment)
    except AssertionError:
        states = ""
    return tuple(
        node
        for node in deployment.nodes
        if node not in together or re.search(rf"\{{'?{re.escape(node.nodename)}'?,", states)
    )


def autoheals(deployment: Deployment) -> bool:
    """Return whether "autoheal" handles partitions: nothing does from 4.3 on, where there is no Mnesia."""
    node = deployment.nodes[0]
    return node.settings.get("rabbitmq_partition_handling") == "autoheal" and not management.enabled(
        deployment, node, "khepri_db"
    )


def healing(deployment: Deployment) -> str:
    """Return which nodes are not done with healing, and what they are at; empty if all are.

    It is a part of the state of the process that handles partitions (rabbit_node_monitor.erl, rabbit_autoheal.erl).

    Raises:
        AssertionError: a node does not say so. That process is not there while its node restarts, and says nothing
            while it waits for others.
    """
    names = ", ".join(f"'{peer.nodename}'" for peer in deployment.nodes)
    states = f"[{{Node, element(7, rpc:call(Node, sys, get_state, [rabbit_node_monitor]))}} || Node <- [{names}]]"
    command = f'rabbitmqctl eval "[Of || {{_, State}} = Of <- {states}, State =/= not_healing]."'
    try:
        answer = deployment.run(deployment.nodes[0], command, what="is every node done with healing")
    except PlaybookError as error:
        raise AssertionError(f"a node does not say whether it heals: {error.output[-300:]}") from error
    found = re.search(r"^\[(.*)\]", answer, re.MULTILINE | re.DOTALL)
    assert found, f"not a list of nodes that heal: {answer}"
    return " ".join(found[1].split())
