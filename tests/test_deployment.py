"""The suite says in a line what is wrong with the inventory that it was given."""

import subprocess
import sys
from pathlib import Path

from smoke.deployment import PROJECT


def complaint(inventory: Path) -> str:
    """Run the suite on an inventory that it must refuse."""
    command = [sys.executable, "-m", "pytest", "smoke", f"--inventory={inventory}"]
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
