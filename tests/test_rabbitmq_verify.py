"""Runs the role's verify against a management API of our own, which says what we want."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.management_api import INVENTORY, PASSWORD, Api, Ran, run

Verify = Callable[..., Ran]


def members(*running: str, down: tuple[str, ...] = (), ticktime: int = 60) -> list[dict[str, Any]]:
    well = {"running": True, "net_ticktime": ticktime, "mem_alarm": False, "disk_free_alarm": False}
    return [{"name": name, **well} for name in running] + [{"name": name, "running": False} for name in down]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    def ask(*answers: Any, password: str = PASSWORD, timeout: int = 1, options: tuple[str, ...] = ()) -> Ran:
        with Api({"nodes": [(200, answer) for answer in answers]}).served() as api:
            variables = {
                "rabbitmq_management_port": api.port,
                "rabbitmq_monitoring_password": password,
                "rabbitmq_api_timeout": timeout,
            }
            return run("verify", tmp_path, variables, *options)

    return ask


def test_a_cluster_that_is_the_inventorys_passes_and_shows_no_password(verify: Verify) -> None:
    ran = verify(members(*INVENTORY), options=("-vvv", "--check", "--diff"))
    assert ran.status == 0, ran.output
    assert "changed=0" in ran.output
    assert PASSWORD not in ran.output
    assert "WARNING: " not in ran.output


def test_a_node_that_learns_of_its_peers_a_little_later_is_waited_for(verify: Verify) -> None:
    nothing_yet = [{"name": name} for name in INVENTORY]
    ran = verify(nothing_yet, members(*INVENTORY[:2], down=("rabbit@c",)), members(*INVENTORY), timeout=30)
    assert ran.status == 0, ran.output


def test_a_node_that_does_not_run_is_refused(verify: Verify) -> None:
    ran = verify(members(*INVENTORY[:2], down=("rabbit@c",)))
    assert ran.status != 0
    assert (
        "rabbit@a sees the members rabbit@a, rabbit@b, rabbit@c, of which rabbit@a, rabbit@b run; "
        "the inventory says rabbit@a, rabbit@b, rabbit@c." in ran.output
    )


def test_a_node_that_formed_a_cluster_of_its_own_is_refused(verify: Verify) -> None:
    ran = verify(members("rabbit@a"))
    assert ran.status != 0
    assert "rabbit@a sees the members rabbit@a, of which rabbit@a run; the inventory says rabbit@a, " in ran.output


def test_a_partition_is_refused_with_how_to_end_it(verify: Verify) -> None:
    nodes = members(*INVENTORY)
    nodes[2]["partitions"] = ["rabbit@a"]
    ran = verify(nodes)
    assert ran.status != 0
    assert "is partitioned, each side having gone on without the other: rabbit@c is apart from rabbit@a. " in ran.output
    assert "playbooks/stop.yml and then playbooks/start.yml" in ran.output


def test_a_node_that_took_over_the_ticktime_of_a_peer_is_refused(verify: Verify) -> None:
    ran = verify(members(*INVENTORY, ticktime=10))
    assert ran.status != 0
    assert "rabbit@a goes by a net_ticktime of 10 s, which it took over from a peer, and not by the " in ran.output


def test_a_member_that_the_inventory_does_not_name_gets_a_warning(verify: Verify) -> None:
    ran = verify(members(*INVENTORY, down=("rabbit@old",)))
    assert ran.status == 0, ran.output
    assert "WARNING: rabbit@old belongs to the cluster of rabbit@a, and the inventory does not name it." in ran.output


def test_an_inventory_that_names_a_minority_of_the_members_is_refused(verify: Verify) -> None:
    ran = verify(members(*INVENTORY, "rabbit@d", "rabbit@e", "rabbit@f"))
    assert ran.status != 0
    assert "rabbit@d, rabbit@e, rabbit@f, of which" in ran.output


def test_an_alarm_gets_a_warning(verify: Verify) -> None:
    nodes = members(*INVENTORY)
    nodes[0]["disk_free_alarm"] = True
    ran = verify(nodes)
    assert ran.status == 0, ran.output
    assert "WARNING: rabbit@a has a disk alarm" in ran.output


def test_a_login_that_is_refused_is_an_error_at_once_and_shows_no_password(verify: Verify) -> None:
    ran = verify(members(*INVENTORY), password="zz-wrong-zz", timeout=30, options=("-vvv",))
    assert ran.status != 0
    assert "refuses the login of rabbitmq_monitoring_user" in ran.output
    assert "playbooks/objects.yml makes the users what the inventory says" in ran.output
    assert "zz-" not in ran.output
