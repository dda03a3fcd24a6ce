"""A cluster that grows by two nodes and gives them up again, and what its clients and its balancers notice of that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from smoke import balancer_stats, management
from smoke.deployment import Balancer, Deployment, PlaybookError
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.processes import Processes
from smoke.stream import RATE, flowing
from smoke.test_change import changes

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full, pytest.mark.timeout(900)]


@pytest.fixture
def grown(deployment: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """The deployment with its spare hosts as nodes; the spares are bare again after the test."""
    if not deployment.spares:
        pytest.skip("needs hosts in the group spare")
    hosts = tmp_path / "grown.json"
    names = [*(node.name for node in deployment.nodes), *deployment.spares]
    nodes: dict[str, dict[str, str]] = {name: {} for name in names}
    hosts.write_text(json.dumps({"rabbitmq": {"hosts": nodes}}), encoding="utf-8")
    (grown,) = Deployment.load([*deployment.inventory, str(hosts)])
    yield grown
    take_out(grown, deployment.spares)


def take_out(grown: Deployment, names: Sequence[str]) -> None:
    """Remove nodes from a cluster, whether they are members or not."""
    for spare in [node for node in grown.nodes if node.name in names]:
        grown.run(spare, "systemctl disable --now rabbitmq-server; rm -rf /var/lib/rabbitmq/mnesia /etc/rabbitmq/*")
        grown.run(
            grown.nodes[0],
            f"rabbitmqctl forget_cluster_node {spare.nodename} || ! rabbitmqctl cluster_status | grep {spare.nodename}",
        )


def test_a_new_node_behind_the_firewall_of_its_peers_is_refused(deployment: Deployment, grown: Deployment) -> None:
    """With --limit nobody tells the peers of it: it would form a cluster of its own, which site.yml then refused."""
    new = next(node for node in grown.nodes if node.name in deployment.spares)
    if "rabbitproof" not in deployment.run(deployment.nodes[0], "nft list tables 2> /dev/null || true"):
        pytest.skip("no firewall keeps a new node from its peers")

    with pytest.raises(PlaybookError) as failure:
        grown.playbook("site", [new])

    assert "and would form a cluster of its own" in failure.value.output
    assert set(management.running(deployment, deployment.nodes[0])) == {node.nodename for node in deployment.nodes}


def test_new_nodes_join_and_the_balancers_learn_them_without_a_reload(
    deployment: Deployment, grown: Deployment, record: Callable[[Verdict], None]
) -> None:
    names = {node.name: "UP" for node in grown.nodes}
    with flowing(deployment) as stream:
        begin = time.monotonic()
        before = Processes(deployment)
        processes = {balancer.name: process(deployment, balancer) for balancer in deployment.balancers}

        grown.playbook("site")
        for balancer in grown.balancers:
            assert balancer_stats.statuses(balancer) == names, f"{balancer.name} has not learned the new nodes"
        assert changes(grown.playbook("site")) == set()

        report = deployment.playbook("site")
        for name in deployment.spares:
            assert f"WARNING: rabbit@{name}" in report or f", rabbit@{name}" in report, (
                "a member was silently forgotten"
            )
        for balancer in deployment.balancers:
            assert set(balancer_stats.statuses(balancer)) == {node.name for node in deployment.nodes}
            assert process(deployment, balancer) == processes[balancer.name], f"{balancer.name} was reloaded"
        # The agents count the members that were taken out until they are told, which assert_whole() looks at.
        take_out(grown, deployment.spares)
        assert "WARNING: rabbit@" not in deployment.playbook("site")
        assert before.restarted() == set(), "a node was restarted"

        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow at the end")
        stream.finish()
        record(stream.verdict(since=begin))


def process(deployment: Deployment, balancer: Balancer) -> str:
    """Return the number of the process that serves clients: a reload starts another one."""
    answer = deployment.run(balancer, f"echo show info | socat stdio unix-connect:{balancer.socket} | grep ^Pid:")
    return next(line for line in answer.splitlines() if line.startswith("Pid:"))
