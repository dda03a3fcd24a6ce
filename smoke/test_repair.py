"""What site.yml refuses to touch, and what it repairs: hosts that are down, gone, built anew, or in somebody's way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from smoke import management
from smoke.aftermath import assert_whole
from smoke.deployment import Balancer, Deployment, Node, PlaybookError
from smoke.history import Kind
from smoke.judge import Verdict
from smoke.outlive import assert_up, switched
from smoke.processes import Processes
from smoke.stream import RATE, flowing
from smoke.test_change import changes
from smoke.test_interrupted import killed_at
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full]

CHANGE = {"rabbitmq_settings": {"channel_max": 1200}}
VRID = 77


@pytest.fixture
def hosts(deployment: Deployment) -> Deployment:
    """The deployment, if every node and balancer has a host of its own."""
    if not deployment.vip:
        pytest.skip("needs hosts of their own, with a virtual address (keepalived_vip)")
    return deployment


def test_a_node_that_is_down_stops_a_change_and_is_repaired_with_limit(deployment: Deployment) -> None:
    victim = deployment.nodes[-1]
    before = Processes(deployment, *deployment.others(victim))
    deployment.stop(victim)

    refusal = refused(deployment, CHANGE)
    assert f"{victim.nodename} on {victim.name} is down" in refusal
    assert f"--limit {victim.name}" in refusal

    # As a restart leaves it that stops half way; --limit leaves out the balancers.
    deployment.balancer_state([victim], "drain")
    deployment.playbook("site", [victim])
    assert_whole(deployment)
    assert before.restarted() == set(), "another one was restarted"


def test_a_host_that_is_built_anew_joins_its_cluster_again(
    hosts: Deployment, record: Callable[[Verdict], None]
) -> None:
    with flowing(hosts) as stream:
        victim = management.leader(hosts, stream.topology)
        begin = time.monotonic()
        hosts.run(
            victim,
            "systemctl stop rabbitmq-server; rm -rf /var/lib/rabbitmq/.[!.]* /var/lib/rabbitmq/* /etc/rabbitmq/*",
        )
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow without the host")

        # The member that it was is forgotten by then, and the node runs: nothing but a mark says what is still due.
        killed_at(hosts, {}, "replicas | Give the node")
        hosts.playbook("site")
        assert_whole(hosts)
        online = {node.nodename for node in hosts.nodes}
        eventually(
            lambda: set(management.queue(hosts, victim, stream.topology).get("online", [])) == online,
            within=30,
            what=f"the queue has a replica on {victim.name} again",
        )
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow with the host back")
        stream.finish()
        record(stream.verdict(since=begin))


def test_a_host_that_cannot_be_reached_is_named_before_anything_changes(hosts: Deployment, tmp_path: Path) -> None:
    victim = hosts.nodes[1]
    before = Processes(hosts)
    (cut_off,) = Deployment.load([*hosts.inventory, closed(tmp_path, victim)])

    refusal = refused(cut_off, CHANGE)

    assert f"[{victim.name}]: UNREACHABLE!" in refusal
    assert before.restarted() == set(), "a node was restarted"


def test_balancers_of_a_pool_of_which_no_node_can_be_asked_are_refused(hosts: Deployment, tmp_path: Path) -> None:
    (cut_off,) = Deployment.load([*hosts.inventory, closed(tmp_path, *hosts.nodes)])

    refusal = refused(cut_off, {}, *hosts.balancers)

    assert f"none of {', '.join(node.name for node in hosts.nodes)} can be reached" in refusal


def test_hosts_that_are_down_stop_nothing_from_which_limit_leaves_them_out(hosts: Deployment) -> None:
    """Their balancer is told of no drain, and of a node that is down the rest of the pool hears at the end."""
    first, *_, last = hosts.nodes
    before = Processes(hosts)
    (idle,) = (balancer for balancer in hosts.balancers if balancer != hosts.holder())
    with switched(hosts, idle, off="kill", on="start"):
        hosts.playbook("restart", [first])
        hosts.playbook("site", [*hosts.nodes, *(balancer for balancer in hosts.balancers if balancer != idle)])
    assert before.restarted() == {first.name}

    with switched(hosts, last, off="kill", on="start"):
        with pytest.raises(PlaybookError) as failure:
            hosts.playbook("site", hosts.balancers)
        assert f"waited 30 s until it sees these nodes UP: {last.name}" in failure.value.output
        assert changes(failure.value.output) == set(), failure.value.output[-2000:]
    assert_up(hosts, *hosts.nodes)
    assert_whole(hosts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"rabbitmq_data_dir": "/var/lib/rabbitproof-elsewhere"},
            "was not started by this project on the data in rabbitmq_data_dir",
        ),
        ({"rabbitmq_management_port": 15999}, "Ports cannot be changed while a cluster runs"),
    ],
    ids=["data-elsewhere", "another-port"],
)
def test_what_a_node_that_runs_cannot_be_given_is_refused(
    deployment: Deployment, change: Mapping[str, object], complaint: str
) -> None:
    assert complaint in refused(deployment, change)


def test_a_virtual_address_that_a_host_has_is_refused(hosts: Deployment) -> None:
    taken = hosts.nodes[0].address

    assert f"keepalived_vip {taken}/24 is taken" in refused(hosts, {"keepalived_vip": f"{taken}/24"})


def test_a_vrid_that_somebody_else_advertises_is_refused(hosts: Deployment, speaker: str) -> None:
    refusal = refused(hosts, {"keepalived_vrid": VRID})

    assert f"keepalived_vrid {VRID} is taken: {speaker} advertises it" in refusal


@pytest.fixture
def speaker(hosts: Deployment) -> Iterator[str]:
    """The address of a host that is no balancer, and advertises a VRID (RFC 5798, 5.1) for a minute."""
    if "rabbitproof" in hosts.run(hosts.balancer, "nft list tables 2> /dev/null || true"):
        pytest.skip("the firewall drops what strangers advertise")
    node = hosts.nodes[0]
    advert = f"bytes([0x31, {VRID}, 100, 1, 0, 100, 0, 0, 10, 0, 0, 1])"
    program = (
        "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112); "
        f"[s.sendto({advert}, ('224.0.0.18', 0)) and time.sleep(0.2) for _ in range(300)]"
    )
    hosts.run(node, f'systemd-run --collect --unit=speaker python3 -c "{program}"')
    yield node.address
    hosts.run(node, "systemctl stop speaker")


def closed(directory: Path, *nodes: Node) -> str:
    """Return an inventory source to be added, after which Ansible finds nobody at the SSH ports of some hosts."""
    file = directory / "closed.json"
    hosts = {node.name: {"ansible_port": 1} for node in nodes}
    file.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    return str(file)


def refused(deployment: Deployment, change: Mapping[str, object], *limit: Node | Balancer) -> str:
    """Run site.yml with a change that has to be refused while nothing was changed; returns what it printed."""
    with pytest.raises(PlaybookError) as failure:
        deployment.playbook("site", limit, extra=change)
    assert changes(failure.value.output) == set(), failure.value.output[-2000:]
    return failure.value.output
