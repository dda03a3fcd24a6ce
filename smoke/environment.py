"""Where a run took place: versions and settings, for its report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import partial

from smoke import management
from smoke.deployment import Deployment, PlaybookError
from smoke.stream import RATE
from smoke.topology import Topology
from smoke.waiting import eventually

# What the clients and the suite are made of.
PACKAGES = ("pika", "pytest", "ansible-core")

# Values by a name that people read, in groups by a heading.
Groups = dict[str, dict[str, str]]


def versions(deployments: Iterable[Deployment]) -> Groups:
    """Return what runs where. A host that does not answer is said to be so: a report must not fail because of it."""
    return {
        "The machine of the suite": {
            "system": f"{_system()}, kernel {platform.release()}, {os.cpu_count()} processors",
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        **{
            name: answers
            for deployment in deployments
            for name, answers in together(_hosts(deployment, _nodes(deployment))).items()
        },
    }


def settings(deployments: Iterable[Deployment]) -> Groups:
    """Return what decides how soon a failure is noticed: of the clients, the balancers and the nodes."""
    groups = {}
    for deployment in deployments:
        clients = deployment.settings(Topology())
        groups[f"Clients of {deployment.pool}"] = {
            "connect to": f"{clients.endpoints[0]}" + (" (virtual address)" if deployment.vip else ""),
            # Numbers only: what is no number is a name or a password.
            **{
                field.name.replace("_", " "): f"{value:g} s"
                for field in fields(clients)
                if isinstance(value := getattr(clients, field.name), int | float)
            },
            "rate": f"{RATE:g} messages/s unless said otherwise",
        }
        for balancer in deployment.balancers:
            # The bounds that follow from the settings first.
            groups[balancer.name] = {
                **{name.replace("_", " "): f"{value:g} s" for name, value in asdict(balancer.detection).items()},
                **_said(balancer.settings),
            }
        for node in deployment.nodes:
            groups[node.name] = _said(node.settings)
    return together(groups)


def together(groups: Mapping[str, Mapping[str, str]]) -> Groups:
    """Put groups that say the same under one heading."""
    same: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, group in groups.items():
        same.setdefault(tuple(group.items()), []).append(name)
    return {", ".join(names): dict(group) for group, names in same.items()}


def _said(settings: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in settings.items()}


def _nodes(deployment: Deployment) -> Groups:
    groups = {}
    for node in deployment.nodes:
        try:
            # A node that has just started fails to answer for some seconds.
            overview = eventually(partial(management.get, deployment, node, "overview"), within=10, what="versions")
            groups[node.name] = {"RabbitMQ": overview["rabbitmq_version"], "Erlang": overview["erlang_version"]}
        except (AssertionError, KeyError) as error:
            groups[node.name] = {"RabbitMQ": f"not known: {error!r}"}
    return groups


def _hosts(deployment: Deployment, groups: Groups) -> Groups:
    try:
        facts = deployment.facts()
    except PlaybookError:
        return {name: {**group, "system": "not known: not every host answered"} for name, group in groups.items()}
    balancers = {balancer.name for balancer in deployment.balancers}
    for host, said in facts.items():
        group = groups.setdefault(host, {})
        group["system"] = f"{said['system']}, kernel {said['kernel']}, {said['processors']} processors"
        if host in balancers:
            group["HAProxy"] = said["haproxy"].removeprefix("HAProxy version ").split(" ")[0]
    return groups


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
