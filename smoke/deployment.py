"""The deployment under test, as its inventory describes it, and what an operator can do to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoke import journal
from smoke.session import Endpoint, Settings
from smoke.topology import Topology

PROJECT = Path(__file__).resolve().parent.parent


# Asks a host about itself, one "name=value" a line. HAProxy is not on the path of every shell, nor on every host.
FACTS = (
    '. /etc/os-release; echo "system=$PRETTY_NAME"; echo "kernel=$(uname -rm)"; echo "processors=$(nproc)"; '
    'echo "haproxy=$(PATH=$PATH:/usr/sbin haproxy -v 2>/dev/null | head -n 1)"'
)


@dataclass(frozen=True, slots=True)
class Node:
    """A RabbitMQ node: its name in the inventory, on the statistics page, and among Erlang nodes; and its cluster.

    The settings, by the name of the variable, are those that decide how soon a failure is noticed.
    """

    name: str
    nodename: str
    cluster: str
    address: str
    amqp_port: int
    management_port: int
    settings: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Detection:
    """What the balancer's check promises, in seconds (haproxy.cfg says it in a comment)."""

    refused_min: float
    refused_max: float
    hung_max: float
    up_max: float


@dataclass(frozen=True, slots=True)
class Balancer:
    """An HAProxy in front of the nodes. For its settings see Node."""

    name: str
    address: str
    port: int
    stats_url: str
    section: str
    socket: str
    backup_servers: tuple[str, ...]
    detection: Detection
    settings: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


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
    """The nodes and balancers of one pool of an inventory, and how to use and to break them.

    Attributes:
        pool: its name.
        inventory: the sources that Ansible was given; none are those that ansible.cfg names.
        alone: the inventory describes nothing else.
        nodes: in the order of the inventory.
        balancers: in the order of the inventory.
        spares: inventory names of hosts that have nothing yet and may become nodes.
        vip: the virtual address in front of the balancers, empty if there is none.
        user: as whom clients log in.
        password: of that user.
        management_user: an administrator, as whom nodes are asked.
        management_password: of that user.
        may_disrupt: the inventory allows tests to stop things.
        power: for each host the shell commands of the control side that freeze, thaw, kill and start it, if the
            inventory has some (smoke_power).
    """

    pool: str
    inventory: tuple[str, ...]
    alone: bool
    nodes: tuple[Node, ...]
    balancers: tuple[Balancer, ...]
    spares: tuple[str, ...]
    vip: str
    user: str
    password: str = field(repr=False)
    management_user: str
    management_password: str = field(repr=False)
    may_disrupt: bool
    power: Mapping[str, Mapping[str, str]]

    @classmethod
    def load(cls, inventory: Sequence[str] = ()) -> list[Deployment]:
        """Let Ansible describe an inventory: one deployment for each pool.

        Raises:
            PlaybookError: Ansible cannot read it.
            LookupError: there is no such inventory, or no balancer in it.
        """
        for source in inventory:
            if not Path(source).exists():
                raise LookupError(f"--inventory {source}: no such file or directory")
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "deployment.json"
            _playbook("describe", inventory, extra={"describe_to": str(file)})
            if not file.exists():
                raise LookupError(f"no host is in the group haproxy of {', '.join(inventory) or 'the inventory'}")
            pools = json.loads(file.read_text(encoding="utf-8"))
        return [
            cls(
                pool=pool["pool"],
                inventory=tuple(inventory),
                alone=len(pools) == 1,
                nodes=tuple(Node(**node) for node in pool["nodes"]),
                balancers=tuple(_balancer(balancer) for balancer in pool["balancers"]),
                spares=tuple(pool["spares"]),
                vip=pool["vip"],
                user=pool["user"],
                password=pool["password"],
                management_user=pool["management_user"],
                management_password=pool["management_password"],
                may_disrupt=pool["may_disrupt"],
                power=pool["power"],
            )
            for pool in pools
        ]

    @property
    def clustered(self) -> bool:
        """Whether the nodes form one cluster; the brokers of a warren do not."""
        return len({node.cluster for node in self.nodes}) == 1

    @property
    def endpoint(self) -> Endpoint:
        """Where clients connect: the virtual address, or else the first balancer."""
        return Endpoint(self.vip or self.balancer.address, self.balancer.port)

    def peers(self, node: Node) -> tuple[Node, ...]:
        """Return the nodes of the cluster of a node, itself included."""
        return tuple(other for other in self.nodes if other.cluster == node.cluster)

    @property
    def balancer(self) -> Balancer:
        """The first balancer. All of them see the same servers."""
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
            endpoints=(self.endpoint,),
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

    def freeze(self, *nodes: Node) -> None:
        """Let nodes do nothing, with SIGSTOP, until thaw(). Their connections stay open."""
        self.playbook("kill", nodes, extra={"rabbitmq_signal": "STOP"}, what="freeze")

    def thaw(self, *nodes: Node) -> None:
        """Let nodes go on after freeze()."""
        self.playbook("kill", nodes, extra={"rabbitmq_signal": "CONT"}, what="thaw")

    def power_host(self, host: Node | Balancer, verb: str) -> None:
        """Freeze, thaw, kill or start a host, as its hypervisor does.

        Raises:
            subprocess.CalledProcessError: it did not.
        """
        command = self.power[host.name][verb]
        with journal.doing(f"{verb} the host {host.name}"):
            subprocess.run(command, shell=True, check=True, capture_output=True, text=True)  # noqa: S602

    def playbook(
        self,
        name: str,
        limit: Sequence[Node | Balancer] = (),
        *,
        extra: Mapping[str, object] | None = None,
        options: Sequence[str] = (),
        what: str = "",
    ) -> str:
        """Run one of the playbooks against this deployment; returns what it printed.

        What it does there is called by the name of the playbook, unless there is a better word.

        Raises:
            PlaybookError: it failed.
        """
        with journal.doing(" ".join([what or name, *(host.name for host in limit), *options])):
            return _playbook(name, self.inventory, limit=self._limit(limit), extra=extra, options=options)

    def command(self, name: str, *, extra: Mapping[str, object] | None = None) -> list[str]:
        """Return the command that playbook() runs, for who wants to interrupt it."""
        return _command("ansible-playbook", self.inventory, *_arguments(name, self._limit(()), extra, ()))

    def run(self, host: Node | Balancer, command: str, *, what: str = "") -> str:
        """Run a shell command on a host as root, called what for people; returns what it printed.

        Raises:
            PlaybookError: it failed, or the host cannot be reached.
        """
        with journal.doing(f"{host.name}: {what or command}"):
            return self._ask([host], command)

    def facts(self) -> dict[str, dict[str, str]]:
        """Return what each host says of its system and its HAProxy, by the name of the host.

        Raises:
            PlaybookError: a host cannot be reached.
        """
        return parse_facts(self._ask([*self.nodes, *self.balancers], FACTS))

    def holder(self) -> Balancer:
        """Return the balancer that clients reach: the one that holds the virtual address."""
        if not self.vip:
            return self.balancer
        for balancer in self.balancers:
            if f" {self.vip}/" in self._ask([balancer], "ip -color=never -oneline address"):
                return balancer
        raise AssertionError(f"no balancer holds {self.vip}")

    def _ask(self, hosts: Sequence[Node | Balancer], command: str) -> str:
        names = ",".join(host.name for host in hosts)
        return _run("ansible", self.inventory, names, "--become", "--module-name=raw", f"--args={command}")

    def _limit(self, hosts: Sequence[Node | Balancer]) -> Sequence[Node | Balancer]:
        return hosts or (() if self.alone else (*self.nodes, *self.balancers))

    def balancer_state(self, nodes: Sequence[Node], state: str) -> None:
        """Set the state of servers on every balancer: "drain", "maint" or "ready" (management guide, "set server").

        A last resort that the balancer has of a node goes with it.

        Raises:
            PlaybookError: HAProxy did not do it.
        """
        names = " ".join(node.name for node in nodes)
        for balancer in self.balancers:
            # Where a command is obeyed, HAProxy says nothing.
            command = (
                f'set() {{ echo "set server {balancer.section}/$1 state {state}" |'
                f" socat -t 2 stdio unix-connect:{balancer.socket}; }}; for name in {names}; do"
                ' answer="$(set "$name")"; [ -z "$answer" ] || { echo "$name: $answer"; exit 1; };'
                ' set "$name:last-resort"; done'
            )
            self.run(balancer, command, what=f"{names} {state}")


def parse_facts(answers: str) -> dict[str, dict[str, str]]:
    """Read what Ansible printed of the answers of several hosts to FACTS: "HOST | CHANGED | rc=0 >>" before each."""
    facts: dict[str, dict[str, str]] = {}
    for line in answers.splitlines():
        if line.endswith(" >>"):
            host = line.split(" ")[0]
            facts[host] = {}
        elif "=" in line and facts:
            name, _, value = line.partition("=")
            facts[host][name] = value.strip()
    return facts


def _playbook(
    name: str,
    inventory: Sequence[str],
    *,
    limit: Sequence[Node | Balancer] = (),
    extra: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
) -> str:
    return _run("ansible-playbook", inventory, *_arguments(name, limit, extra, options))


def _arguments(
    name: str, limit: Sequence[Node | Balancer], extra: Mapping[str, object] | None, options: Sequence[str]
) -> list[str]:
    arguments = [f"playbooks/{name}.yml", *options]
    if limit:
        arguments.append("--limit=" + ",".join(host.name for host in limit))
    if extra:
        arguments.append("--extra-vars=" + json.dumps(extra))
    return arguments


def _command(command: str, inventory: Sequence[str], *arguments: str) -> list[str]:
    sources = [f"--inventory={Path(source).resolve()}" for source in inventory]
    return [str(Path(sys.executable).parent / command), *sources, *arguments]


def _run(command: str, inventory: Sequence[str], *arguments: str) -> str:
    done = subprocess.run(
        _command(command, inventory, *arguments),
        cwd=PROJECT,
        # What is read of it must not have colours in it.
        env=os.environ | {"ANSIBLE_FORCE_COLOR": "0"},
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
        settings=described["settings"],
    )
