"""The suite says in a line what is wrong with the inventory and the options that it was given."""

import subprocess
import sys
from pathlib import Path

from smoke.deployment import PROJECT


def complaint(inventory: Path, *options: str) -> str:
    """Run the suite on what it must refuse."""
    command = [sys.executable, "-m", "pytest", "smoke", f"--inventory={inventory}", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stdout
    return done.stderr.strip()


def test_an_inventory_that_is_not_there(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none") == f"ERROR: --inventory {tmp_path}/none: no such file or directory"


def test_an_inventory_without_a_balancer(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[other]\nlocalhost\n")
    assert complaint(inventory) == f"ERROR: no host is in the group haproxy of {inventory}"


def test_an_inventory_that_ansible_refuses(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[haproxy]\nlb1 ansible_connection=none\n")
    said = complaint(inventory)
    assert said.startswith("ERROR: ansible-playbook playbooks/describe.yml")
    assert "Traceback" not in said


def test_a_walk_that_would_go_nowhere(tmp_path: Path) -> None:
    said = complaint(tmp_path / "none", "--profile=soak", "--minutes=0")
    assert "argument --minutes: '0' is not a number above 0" in said
