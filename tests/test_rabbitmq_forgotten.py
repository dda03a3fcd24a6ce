"""Runs what a host that was built anew has forgotten of it, against a command line tool of our own."""

import json
from pathlib import Path

import pytest

from tests.management_api import INVENTORY, Ran, run

SHRINK = f"Error: RabbitMQ failed to shrink some entities on node {INVENTORY[0]} : Quorum queues"
OTHER = f"Error: RabbitMQ on node {INVENTORY[0]} must be stopped with 'rabbitmqctl stop_app' before it can be removed"


def forget(directory: Path, *, members: list[str], says: str = "", status: int = 0) -> Ran:
    """Let a member be forgotten by a peer, whose tool knows these members, and then says this and ends so."""
    status_json = json.dumps({"disk_nodes": members}, separators=(",", ":"))
    (directory / "rabbitmqctl").write_text(
        f"""#!/bin/sh
case $1 in
cluster_status) echo '{status_json}' ;;
forget_cluster_node) echo "$2" >> {directory}/forgotten; echo "Removing node $2"; echo "{says}"; exit {status} ;;
esac
"""
    )
    (directory / "rabbitmqctl").chmod(0o755)
    extra = json.dumps({"__rabbitmq_bin": str(directory)})
    return run("forgotten", directory, {"item": "a", "rabbitmq_config_dir": "/none"}, f"--extra-vars={extra}")


def test_a_member_is_forgotten(tmp_path: Path) -> None:
    ran = forget(tmp_path, members=INVENTORY)
    assert (ran.status, (tmp_path / "forgotten").read_text()) == (0, f"{INVENTORY[0]}\n"), ran.output
    assert "changed=1" in ran.output


def test_one_that_is_no_member_is_left_alone(tmp_path: Path) -> None:
    ran = forget(tmp_path, members=INVENTORY[1:])
    assert ran.status == 0, ran.output
    assert not (tmp_path / "forgotten").exists()
    assert "changed=0" in ran.output


@pytest.mark.parametrize(("says", "failed"), [(SHRINK, False), (OTHER, True)], ids=["a lost queue", "another reason"])
def test_a_queue_that_cannot_be_shrunk_keeps_no_host_out(tmp_path: Path, says: str, failed: bool) -> None:
    ran = forget(tmp_path, members=INVENTORY, says=says, status=69)
    assert (ran.status != 0) == failed, ran.output
