"""Measures how many messages a second clients publish and consume, direct and through the balancer."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

from pika.exceptions import AMQPError

from bench import clients, commands
from bench.clients import COUNT, Client, ClientError
from bench.lab import BenchmarkError, Lab
from bench.report import this_machine
from bench.throughput_report import Rate, Run, section
from smoke import management
from smoke.deployment import Deployment, Node
from smoke.session import Endpoint, FatalError, Settings
from smoke.topology import Topology
from smoke.waiting import eventually

# How a client reaches the broker.
DIRECT = "direct"
PATHS = (DIRECT, "through the balancer")
# What a measurement may end with; it is a result then.
FAILURES = (ClientError, TimeoutError, FatalError, AMQPError, OSError, AssertionError)


def measure(runs: int) -> Iterator[str]:
    """Measure every client so many times; gives the section of the document.

    Raises:
        BenchmarkError: the lab could not be made, or does not answer, or nothing could be measured.
        PlaybookError: it could not be described.
    """
    lab = Lab()
    lab.make()
    lab.deploy("deployment")
    (deployment,) = Deployment.load(lab.inventory)
    missing = commands.missing()
    run = Run(this_machine(), runs, COUNT, datetime.now(UTC), lab.versions() | _versions(bool(missing)), missing)
    publishers = clients.PUBLISHERS | ({} if missing else commands.PUBLISHERS)
    consumers = clients.CONSUMERS | ({} if missing else commands.CONSUMERS)
    for number in range(1, runs + 1):
        for consumes, compared in ((False, publishers), (True, consumers)):
            for name, client in compared.items():
                for path in PATHS:
                    rate = _once(deployment, Rate(name, consumes, path), client)
                    run.rates.append(rate)
                    print(f"run {number} of {runs}: {name}, {path}: {rate}", flush=True)
    if all(rate.per_second is None for rate in run.rates):
        raise BenchmarkError(f"nothing could be measured: {run.rates[0].complaint}")
    yield section(run)


def _once(deployment: Deployment, rate: Rate, client: Client) -> Rate:
    try:
        with _queue(deployment) as direct:
            settings = direct if rate.path == DIRECT else replace(direct, endpoints=(deployment.endpoint,))
            if rate.consumes:
                clients.produce(direct, window=1000)
                _assert_holds(direct, COUNT)
            seconds = client(settings)
            _assert_holds(direct, 0 if rate.consumes else COUNT)
            return replace(rate, per_second=COUNT / seconds)
    except FAILURES as error:
        return replace(rate, complaint=" ".join(str(error).split()) or type(error).__name__)


@contextmanager
def _queue(deployment: Deployment) -> Iterator[Settings]:
    """A quorum queue of its own; gives what a client needs to reach the node that leads it."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    topology = Topology(name, name, name)
    settings = _at(deployment.nodes[0], deployment.settings(topology))
    with clients.connect(settings) as connection:
        channel = connection.channel()
        channel.exchange_declare(topology.exchange, "direct", durable=True)
        channel.queue_declare(topology.queue, durable=True, arguments=topology.queue_arguments)
        channel.queue_bind(topology.queue, topology.exchange, topology.routing_key)
    try:
        leader = eventually(partial(_leader, deployment, topology), within=30, what="the queue has a leader")
        yield _at(leader, settings)
    finally:
        with clients.connect(settings) as connection:
            channel = connection.channel()
            channel.queue_delete(topology.queue)
            channel.exchange_delete(topology.exchange)


def _at(node: Node, settings: Settings) -> Settings:
    return replace(settings, endpoints=(Endpoint(node.address, node.amqp_port),))


def _leader(deployment: Deployment, topology: Topology) -> Node | None:
    found = management.queue(deployment, deployment.nodes[0], topology)
    name = found.get("leader") or found.get("node")
    return deployment.node(name) if name else None


def _assert_holds(settings: Settings, count: int) -> None:
    """Insist that so many messages wait in the queue: what was sent without confirms may have got lost."""
    eventually(partial(_holds, settings, count), within=10, what=f"the queue holds {count} messages")


def _holds(settings: Settings, count: int) -> bool:
    with clients.connect(settings) as connection:
        found = connection.channel().queue_declare(settings.topology.queue, passive=True).method.message_count
    assert found == count, f"it holds {found}"
    return True


def _versions(without_commands: bool) -> dict[str, str]:
    found = {"pika": version("pika")}
    if not without_commands:
        command = ["dpkg-query", "--show", "--showformat=${Version}", "amqp-tools"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        found["amqp-tools"] = said.stdout or "of no package"
    return found
