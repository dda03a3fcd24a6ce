"""Two things go wrong at once, or something goes wrong while an operator works."""

from __future__ import annotations

import threading
import time

import pytest

from smoke import balancer_stats, management
from smoke.aftermath import assert_whole
from smoke.deployment import Deployment, PlaybookError
from smoke.outlive import assert_up, flow, survived, switched
from smoke.processes import Processes
from smoke.report import Record
from smoke.stream import flowing
from smoke.test_change import changes
from smoke.waiting import eventually

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.full, pytest.mark.timeout(900)]

CHANGE = {"rabbitmq_settings": {"channel_max": 1100}}


def test_a_node_is_killed_while_another_one_is_restarted(deployment: Deployment, record: Record) -> None:
    """The run goes on or stops, but takes no second node out; run again, it ends where it would have ended."""
    first, *_, last = deployment.nodes
    refusals: list[PlaybookError] = []

    def change() -> None:
        try:
            deployment.playbook("site", extra=CHANGE)
        except PlaybookError as error:
            refusals.append(error)

    run = threading.Thread(target=change, name="site.yml")
    try:
        with flowing(deployment) as stream:
            before = Processes(deployment)
            begin = time.monotonic()
            run.start()
            eventually(
                lambda: balancer_stats.statuses(deployment.balancer)[first.name] != "UP",
                within=180,
                what=f"{first.name} is taken out for its restart",
            )
            deployment.kill(last)
            run.join()
            print(f"site.yml {'stopped' if refusals else 'went on'}: {refusals[0] if refusals else ''}")
            deployment.start(*deployment.nodes)
            assert_whole(deployment)
            deployment.playbook("site", extra=CHANGE)
            assert changes(deployment.playbook("site", extra=CHANGE)) == set(), "something was left to do"
            assert before.restarted() == {node.name for node in deployment.nodes}, "a node did not restart"
            flow(stream, "messages flow after the change")
            stream.finish()
            record(stream.verdict(since=begin))
    finally:
        if run.ident:
            run.join()
        deployment.start(*deployment.nodes)
        deployment.playbook("rabbitmq")


def test_a_balancer_and_the_leader_of_the_queue_lose_their_power_together(hosts: Deployment, record: Record) -> None:
    with flowing(hosts) as stream:
        victims = (hosts.holder(), management.leader(hosts, stream.topology))
        begin = time.monotonic()
        with switched(hosts, *victims, off="kill", on="start"):
            survived(stream, begin, "messages flow without both")
        assert_up(hosts, *hosts.nodes)
        assert_whole(hosts)
        stream.finish()
        record(stream.verdict(since=begin))
