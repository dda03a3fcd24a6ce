"""The deployment under test, as its inventory describes it, and what an operator can do to it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoke.session import Endpoint, Settings
from smoke.topology import Topology

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Node:
    """A RabbitMQ node: its name in the inventory, on the statistics page, and among Erlang nodes."""

    name: str
    nodename: str
    address: str
    amqp_port: int
    management_port: int


@dataclass(frozen=True, slots=True)
class Detection:
    """What the balancer's check promises, in seconds (haproxy.cfg says it in a comment)."""

    refused_min: float
    refused_max: float
    hung_max: float
    up_max: float


@dataclass(frozen=True, slots=True)
class Balancer:
    """An HAProxy in front of the nodes."""

    name: str
    address: str
    port: int
    stats_url: str
    section: str
    socket: str
    backup_servers: tuple[str, ...]
    detection: Detection


class PlaybookError(Exception):
    """A playbook failed.

    Attributes:
        output: what it printed.
    """

    def __init__(self, command: str, code: int, output: str) -> None:
        super().__init__(f"{command}: exit code {code}\n{output[-4000:]}")
        self.output = output


@dataclass(frozen=True, slots=True)
class Deployment:
    """Nodes, balancers and credentials of one inventory.

    Attributes:
        inventory: its path; None is the one that ansible.cfg names.
        nodes: in the order of the inventory.
        balancers: in the order of the inventory.
        user: as whom clients log in.
        password: of that user.
        management_user: an administrator, as whom nodes are asked.
        management_password: of that user.
        may_disrupt: the inventory allows tests to stop things.
    """

    inventory: str | None
    nodes: tuple[Node, ...]
    balancers: tuple[Balancer, ...]
    user: str
    password: str = field(repr=False)
    management_user: str
    management_password: str = field(repr=False)
    may_disrupt: bool

    @classmethod
    def load(cls, inventory: str | None) -> Deployment:
        """Let Ansible describe an inventory.

        Raises:
            PlaybookError: Ansible cannot read it.
        """
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "deployment.json"
            _playbook("describe", inventory, extra={"describe_to": str(file)})
            described = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            inventory=inventory,
            nodes=tuple(Node(**node) for node in described["nodes"]),
            balancers=tuple(_balancer(balancer) for balancer in described["balancers"]),
            user=described["user"],
            password=described["password"],
            management_user=described["management_user"],
            management_password=described["management_password"],
            may_disrupt=described["may_disrupt"],
        )

    @property
    def balancer(self) -> Balancer:
        """The first balancer, through which clients connect."""
        return self.balancers[0]

    def node(self, nodename: str) -> Node:
        """Return the node with an Erlang name."""
        return next(node for node in self.nodes if node.nodename == nodename)

    def others(self, *nodes: Node) -> tuple[Node, ...]:
        """Return the nodes that are none of these."""
        return tuple(node for node in self.nodes if node not in nodes)

    def settings(self, topology: Topology) -> Settings:
        """Return what a client needs to connect through the balancer."""
        return Settings(
            endpoints=(Endpoint(self.balancer.address, self.balancer.port),),
            user=self.user,
            password=self.password,
            topology=topology,
        )

    def stop(self, *nodes: Node) -> None:
        """Stop nodes, together, as an operator does."""
        self.playbook("stop", nodes)

    def start(self, *nodes: Node) -> None:
        """Start nodes, together, and wait until they serve. Harmless for those that run."""
        self.playbook("start", nodes)

    def kill(self, *nodes: Node) -> None:
        """Kill nodes with SIGKILL; their service manager brings them back."""
        self.playbook("kill", nodes)

    def playbook(
        self,
        name: str,
        limit: Sequence[Node | Balancer] = (),
        *,
        extra: Mapping[str, object] | None = None,
        options: Sequence[str] = (),
    ) -> str:
        """Run one of the playbooks against this inventory; returns what it printed.

        Raises:
            PlaybookError: it failed.
        """
        return _playbook(name, self.inventory, limit=limit, extra=extra, options=options)

    def balancer_state(self, node: Node, state: str) -> None:
        """Take a server out of the pool ("disabled") or put it back ("enabled"), through the runtime API.

        Raises:
            PlaybookError: HAProxy did not do it.
        """
        balancer = self.balancer
        arguments = {"state": state, "host": node.name, "backend": balancer.section, "socket": balancer.socket}
        _run(
            "ansible",
            self.inventory,
            balancer.name,
            "--become",
            "--module-name=community.general.haproxy",
            f"--args={json.dumps(arguments)}",
        )


def _playbook(
    name: str,
    inventory: str | None,
    *,
    limit: Sequence[Node | Balancer] = (),
    extra: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
) -> str:
    arguments = [f"playbooks/{name}.yml", *options]
    if limit:
        arguments.append("--limit=" + ",".join(host.name for host in limit))
    if extra:
        arguments.append("--extra-vars=" + json.dumps(extra))
    return _run("ansible-playbook", inventory, *arguments)


def _run(command: str, inventory: str | None, *arguments: str) -> str:
    sources = [] if inventory is None else [f"--inventory={Path(inventory).resolve()}"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / command), *sources, *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PlaybookError(f"{command} {' '.join(arguments)}", done.returncode, done.stdout)
    return done.stdout


def _balancer(described: dict[str, Any]) -> Balancer:
    return Balancer(
        **{name: described[name] for name in ("name", "address", "port", "stats_url", "section", "socket")},
        backup_servers=tuple(described["backup_servers"]),
        detection=Detection(**{name: float(value) for name, value in described["detection"].items()}),
    )
