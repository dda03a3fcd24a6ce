"""What running the playbooks again does to a deployment, and to the applications that use it."""

from __future__ import annotations

import re
import time

import pytest

from smoke import management
from smoke.deployment import Deployment, PlaybookError
from smoke.gates import ROLLED, promised
from smoke.history import Kind
from smoke.processes import Processes
from smoke.report import Record
from smoke.stream import BUSY, RATE, flowing
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster]


def test_running_site_again_changes_nothing(deployment: Deployment) -> None:
    recap = deployment.playbook("site")

    assert changes(recap) == set(), recap[-2000:]


def test_checking_a_finished_deployment_shows_no_difference(deployment: Deployment) -> None:
    recap = deployment.playbook("site", options=["--check", "--diff"])

    assert changes(recap) == set(), recap[-2000:]
    assert "+++ after" not in recap


@pytest.mark.full
def test_checking_a_pending_change_shows_it_and_makes_no_difference(deployment: Deployment) -> None:
    before = Processes(deployment)

    shown = deployment.playbook(
        "site", options=["--check", "--diff"], extra={"rabbitmq_settings": {"channel_max": 1000}}
    )

    assert "+channel_max = 1000" in shown
    assert before.restarted() == set(), "a node was restarted"
    assert changes(deployment.playbook("site", options=["--check"])) == set(), "something was written"


@pytest.mark.full
def test_plugins_and_the_level_of_the_log_change_without_a_restart(deployment: Deployment) -> None:
    before = Processes(deployment)
    wanted = {"rabbitmq_log_level": "debug", "rabbitmq_plugins": sorted({*plugins(deployment)[0], "rabbitmq_shovel"})}

    try:
        deployment.playbook("site", extra=wanted)
        # A node says what it said 5 s ago (collect_statistics_interval).
        eventually(
            lambda: all("rabbitmq_shovel" in enabled for enabled in plugins(deployment)),
            within=10,
            what="the plugin is on",
        )
        assert changes(deployment.playbook("site", extra=wanted)) == set(), "the change is not all of it"
    finally:
        deployment.playbook("rabbitmq")
    eventually(
        lambda: not any("rabbitmq_shovel" in enabled for enabled in plugins(deployment)),
        within=10,
        what="the plugin is off again",
    )
    assert before.restarted() == set(), "a node was restarted"


@pytest.mark.parametrize("rate", [RATE, pytest.param(BUSY, marks=pytest.mark.full)], ids="{:.0f} a second".format)
def test_a_changed_configuration_reaches_one_node_at_a_time(
    deployment: Deployment, record: Record, rate: float
) -> None:
    if rate == BUSY and not deployment.vip:
        pytest.skip("the nodes share one machine: done where they have hosts of their own, with a virtual address")
    try:
        with flowing(deployment, rate=rate) as stream:
            begin = time.monotonic()
            before = Processes(deployment)
            ticktime = 5 + int(str(deployment.nodes[0].settings["rabbitmq_net_ticktime"]))
            changed = {"rabbitmq_settings": {"channel_max": 1000}, "rabbitmq_net_ticktime": ticktime}
            deployment.playbook("site", extra=changed)
            # Nodes take over that of peers that have not changed yet.
            assert ticktimes(deployment) == [ticktime] * len(deployment.nodes)
            assert before.restarted() == {node.name for node in deployment.nodes}, "a node did not restart"
            stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow after the change")
            stream.finish()
            record(stream.verdict(since=begin), gate=promised(deployment, ROLLED))
    finally:
        # Nodes that do not run are configured and started together, which is quicker than one after the other.
        deployment.stop(*deployment.nodes)
        deployment.playbook("rabbitmq")


@pytest.mark.full
def test_a_configuration_that_keeps_a_node_from_starting_stops_at_the_first_and_can_be_taken_back(
    deployment: Deployment, record: Record
) -> None:
    first, *others = deployment.nodes
    with flowing(deployment) as stream:
        begin = time.monotonic()
        before = Processes(deployment, *others)
        with pytest.raises(PlaybookError) as failure:
            deployment.playbook("site", extra={"rabbitmq_settings": {"no_such_key": 1}, "rabbitmq_start_timeout": 20})
        assert f"{first.nodename} failed at" in failure.value.output
        assert "no_such_key" in failure.value.output, "the end of the node's log is not in the message"
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow without the node")

        deployment.playbook("site")
        assert before.restarted() == set(), "another node was touched"
        stream.wait_for(Kind.delivery, int(RATE), since=time.monotonic(), what="messages flow with all nodes again")
        stream.finish()
        record(stream.verdict(since=begin))


def changes(recap: str) -> set[str]:
    """Return the hosts for which a run reports changes."""
    hosts = re.findall(r"(?m)^(\S+)\s+: ok=.*changed=(\d+)", recap)
    assert hosts, f"this names no host: {recap[-2000:]}"
    return {host for host, changed in hosts if changed != "0"}


def ticktimes(deployment: Deployment) -> list[int]:
    """Return the net_ticktime that each node goes by, in seconds."""
    return [int(node["net_ticktime"]) for node in management.get(deployment, deployment.nodes[0], "nodes")]


def plugins(deployment: Deployment) -> list[list[str]]:
    """Return the plugins that each node was told to have, without those that they need."""
    return [management.get(deployment, node, f"nodes/{node.nodename}")["enabled_plugins"] for node in deployment.nodes]
