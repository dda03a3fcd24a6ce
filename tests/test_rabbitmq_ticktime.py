"""Runs what gives a cluster its net_ticktime, against a management API and a command line tool of our own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.management_api import INVENTORY, Api, Ran, run

Bring = Callable[..., tuple[Ran, str]]


def going_by(*ticktimes: int) -> list[dict[str, Any]]:
    return [{"name": name, "net_ticktime": ticktime} for name, ticktime in zip(INVENTORY, ticktimes, strict=False)]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """Runs the tasks where the API says this and 10 s are wanted; returns what the tool was told, too."""
    told = tmp_path / "told"
    (tmp_path / "rabbitmqctl").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (tmp_path / "rabbitmqctl").chmod(0o755)
    extra = json.dumps({"__rabbitmq_bin": str(tmp_path)})

    def bring(*answers: Any, status: int = 200, options: tuple[str, ...] = ()) -> tuple[Ran, str]:
        with Api({"nodes": [(status, answer) for answer in answers]}).served() as api:
            variables = {
                "rabbitmq_management_port": api.port,
                "rabbitmq_api_timeout": 10 if status == 200 else 1,
                "rabbitmq_net_ticktime": 10,
            }
            ran = run("ticktime", tmp_path, variables, f"--extra-vars={extra}", *options)
        return ran, told.read_text() if told.exists() else ""

    return bring


def test_a_cluster_whose_nodes_go_by_the_given_one_is_left_alone(bring: Bring) -> None:
    ran, told = bring(going_by(10, 10, 10))
    assert (ran.status, told) == (0, ""), ran.output
    assert "changed=0" in ran.output


@pytest.mark.parametrize("ticktimes", [(10, 60, 10), (60, 60, 60)], ids=["a mixture", "the old one"])
def test_all_nodes_are_given_it_in_one_call(bring: Bring, ticktimes: tuple[int, ...]) -> None:
    ran, told = bring(going_by(*ticktimes))
    assert ran.status == 0, ran.output
    assert "changed=1" in ran.output
    call = "rpc:call(Node, net_kernel, set_net_ticktime, [10, 0]) || Node <- ['rabbit@a', 'rabbit@b', 'rabbit@c']"
    assert " ".join(told.split()) == f"eval [{call}]."


def test_a_node_that_says_nothing_yet_is_waited_for(bring: Bring) -> None:
    not_yet = [*going_by(10, 10), {"name": INVENTORY[2]}]
    ran, told = bring(not_yet, going_by(10, 10, 60))
    assert ran.status == 0, ran.output
    assert told.startswith("eval ")


def test_a_member_that_the_inventory_does_not_name_is_not_asked_after(bring: Bring) -> None:
    ran, told = bring([*going_by(10, 10, 10), {"name": "rabbit@z", "net_ticktime": 60}])
    assert (ran.status, told) == (0, ""), ran.output


def test_a_check_tells_nobody(bring: Bring) -> None:
    ran, told = bring(going_by(10, 60, 10), options=("--check",))
    assert (ran.status, told) == (0, ""), ran.output


def test_a_cluster_without_the_user_yet_is_left_to_verify(bring: Bring) -> None:
    ran, told = bring({"error": "not_authorized"}, status=401)
    assert (ran.status, told) == (0, ""), ran.output
