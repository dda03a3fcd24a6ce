"""Runs what a restart waits for against a management API of our own, and against command line tools of our own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.management_api import INVENTORY, PASSWORD, Api, Ran, run

QUORUM = "health/checks/node-is-quorum-critical"
ALARMS = "health/checks/alarms"
TOOLS = ("rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-upgrade")
FINE = {"status": "ok"}


def nodes(*running: str) -> list[dict[str, Any]]:
    return [{"name": name, "running": name in running} for name in INVENTORY]


def endangered(*queues: str) -> dict[str, Any]:
    return {
        "status": "failed",
        "reason": "There are quorum queues that would lose their quorum if the target node is shut down",
        "queues": [{"name": name, "readable_name": f"queue '{name}' in vhost '/'"} for name in queues],
    }


Gate = Callable[..., Ran]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Wait at the gate; said is what the API says instead of that all is well, and the tools end with a status."""

    def wait(
        said: dict[str, list[tuple[int, Any]]] | None = None,
        *,
        patience: int = 1,
        alarms: bool = True,
        tools: int = 0,
        api: bool = True,
        options: tuple[str, ...] = (),
        **variables: Any,
    ) -> Ran:
        for name in TOOLS:
            (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\nexit {tools}\n')
            (tmp_path / name).chmod(0o755)
        (tmp_path / "called").write_text("")
        well: dict[str, list[tuple[int, Any]]] = {
            "nodes": [(200, nodes(*INVENTORY))],
            QUORUM: [(200, FINE)],
            ALARMS: [(200, FINE)],
        }
        with Api(well | (said or {})).served() as served:
            given = {
                # Nobody listens on the port that no service has.
                "rabbitmq_management_port": served.port if api else 1,
                "rabbitmq_quorum_timeout": patience,
                "__rabbitmq_without_alarm": alarms,
            }
            extra = json.dumps({"__rabbitmq_bin": str(tmp_path)})
            return run("gate", tmp_path, given | variables, f"--extra-vars={extra}", *options)

    return wait


def called(tmp_path: Path) -> list[str]:
    return (tmp_path / "called").read_text().splitlines()


def test_a_cluster_that_is_whole_is_passed_without_a_command_line_tool(gate: Gate, tmp_path: Path) -> None:
    ran = gate(options=("-vvv",))
    assert ran.status == 0, ran.output
    assert "changed=0" in ran.output
    assert PASSWORD not in ran.output
    assert called(tmp_path) == []


def test_what_comes_right_is_waited_for(gate: Gate) -> None:
    ran = gate({"nodes": [(200, nodes(*INVENTORY[:2])), (200, nodes(*INVENTORY))]}, patience=30)
    assert ran.status == 0, ran.output


def test_a_node_that_is_down_is_named(gate: Gate) -> None:
    ran = gate({"nodes": [(200, nodes(*INVENTORY[:2]))]})
    assert ran.status != 0
    assert "waited 1 s until all nodes run; these do not: rabbit@c" in ran.output


def test_queues_that_cannot_lose_a_node_are_named(gate: Gate) -> None:
    ran = gate({QUORUM: [(503, endangered("orders", "invoices"))]})
    assert ran.status != 0
    assert (
        "waited 1 s until every queue can lose a node; too few members run of "
        "queue 'orders' in vhost '/', queue 'invoices' in vhost '/'" in ran.output
    )


def test_of_many_queues_some_are_named(gate: Gate) -> None:
    ran = gate({QUORUM: [(503, endangered(*(f"q{number}" for number in range(30))))]})
    assert "queue 'q9' in vhost '/' and 20 more" in ran.output


def test_an_alarm_is_named_where_it_matters(gate: Gate) -> None:
    alarm = {"status": "failed", "reason": "alarms", "alarms": [{"node": "rabbit@b", "resource": "disk"}]}
    ran = gate({ALARMS: [(503, alarm)]})
    assert ran.status != 0
    assert "waited 1 s until no node has an alarm; there are" in ran.output
    assert "rabbit@b" in ran.output
    assert gate({ALARMS: [(503, alarm)]}, alarms=False).status == 0


@pytest.mark.parametrize("unknown", [{"rabbitmq_monitoring_password": "zz-wrong-zz"}, {"api": False}], ids=str)
def test_an_api_that_does_not_know_us_yet_is_replaced_by_the_command_line_tools(
    unknown: dict[str, Any], gate: Gate, tmp_path: Path
) -> None:
    ran = gate(patience=30, **unknown)
    assert ran.status == 0, ran.output
    assert called(tmp_path) == [
        "rabbitmqctl await_online_nodes 3 --timeout 5",
        "rabbitmq-diagnostics check_alarms",
        "rabbitmq-upgrade await_online_quorum_plus_one --timeout 5",
    ]


def test_the_command_line_tools_are_believed_too(gate: Gate, tmp_path: Path) -> None:
    ran = gate(api=False, tools=69)
    assert ran.status != 0
    assert "waited 1 s until all nodes run" in ran.output
    assert set(called(tmp_path)) == {"rabbitmqctl await_online_nodes 3 --timeout 5"}
