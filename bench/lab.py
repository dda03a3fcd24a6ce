"""The hosts of the benchmark: Ansible makes them, deploys on them, asks them and removes them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.timing import events, failures, outputs

PROJECT = Path(__file__).resolve().parent.parent
INVENTORY = PROJECT / "bench" / "inventory"
# Seconds in which Ansible ends after it was told to.
PATIENCE = 20

# What the hosts run, one line each; in the order of the document.
VERSIONS = r"""
. /etc/os-release; echo "Hosts=$PRETTY_NAME"
dpkg-query --show --showformat='${Package}=${Version}\n' rabbitmq-server erlang-base haproxy keepalived 2> /dev/null
true
"""
NAMES = {"rabbitmq-server": "RabbitMQ", "erlang-base": "Erlang", "haproxy": "HAProxy", "keepalived": "keepalived"}


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message is for the operator."""


@contextmanager
def alone() -> Iterator[None]:
    """Keep a second benchmark from taking away the hosts of the first."""
    with (INVENTORY / "hosts.yml").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError("another benchmark is running here; wait until it has ended") from None
        yield


@contextmanager
def nothing_left() -> Iterator[None]:
    """Leave no host behind, however the block ends."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        Lab().remove()


@dataclass(frozen=True, slots=True)
class Lab:
    """Three nodes and two balancers, as in inventory/lab.

    Attributes:
        overlay: inventory sources that say something else than inventory/lab does.
    """

    overlay: tuple[Path, ...] = ()

    @property
    def inventory(self) -> tuple[str, ...]:
        """The inventory sources; the later ones win."""
        return tuple(str(source) for source in (PROJECT / "inventory" / "lab", INVENTORY, *self.overlay))

    def make(self) -> None:
        """Make the hosts anew: bare Debian.

        Raises:
            BenchmarkError: they could not be made.
        """
        self.remove()
        self._playbook("create")

    def remove(self) -> None:
        """Remove the hosts, if there are any.

        Raises:
            BenchmarkError: they could not be removed.
        """
        self._playbook("destroy")

    def deploy(self, what: str, *options: str) -> list[dict[str, Any]]:
        """Run playbooks/site.yml; returns the events of the run.

        Raises:
            BenchmarkError: what, as it is called, failed.
        """
        code, printed = self.ansible("ansible-playbook", "playbooks/site.yml", *options, as_events=True)
        seen = events(printed.splitlines())
        if code != 0:
            raise BenchmarkError(f"{what} failed: {(failures(seen) or [_last_line(printed)])[0]}")
        return seen

    def containers(self) -> list[str]:
        """Return the ids of the containers that are the hosts.

        Raises:
            BenchmarkError: there are none.
        """
        command = "podman ps --quiet --no-trunc --filter label=rabbitproof.lab={{ lab_name }}"
        found = self._ask("localhost", "--become", f"--args={command}")["localhost"].split()
        if not found:
            raise BenchmarkError("podman names no container of the lab that was created just now")
        return found

    def versions(self) -> dict[str, str]:
        """Return what the hosts run, and what deployed it.

        Raises:
            BenchmarkError: a host does not answer.
        """
        _, ansible = self.ansible("ansible-playbook", "--version")
        found = {"Ansible": ansible.splitlines()[0].partition("core ")[2].rstrip("]")}
        for printed in self._ask("lab", f"--args={VERSIONS}").values():
            pairs = dict(line.strip().split("=", 1) for line in printed.splitlines() if "=" in line)
            found |= {NAMES.get(name, name): version for name, version in pairs.items()}
        return found

    def ansible(self, command: str, *arguments: str, as_events: bool = False) -> tuple[int, str]:
        """Run a command of Ansible on the inventory; returns its exit code and what it printed."""
        environment = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_JSON_INDENT": "0"}
        if as_events:
            environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / command),
                *(f"--inventory={source}" for source in self.inventory),
                *arguments,
            ],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            printed, _ = process.communicate()
        except BaseException:
            # Not in the middle of a task, which would go on while its host is taken away.
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        return process.returncode, printed

    def _playbook(self, name: str) -> None:
        code, printed = self.ansible("ansible-playbook", f"molecule/shared/{name}.yml")
        if code != 0:
            raise BenchmarkError(f"molecule/shared/{name}.yml failed:\n{printed[-2000:].strip()}")

    def _ask(self, hosts: str, *options: str) -> dict[str, str]:
        """Run a shell command on hosts; returns what it printed on each."""
        code, printed = self.ansible("ansible", hosts, "--module-name=raw", *options, as_events=True)
        seen = events(printed.splitlines())
        if code != 0:
            raise BenchmarkError((failures(seen) or [_last_line(printed)])[0])
        return outputs(seen)


def _last_line(printed: str) -> str:
    return (printed.strip().splitlines() or ["Ansible said nothing"])[-1]
