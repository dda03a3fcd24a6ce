"""From nothing to a deployment and back: a second one, beside the first and apart from it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from smoke.deployment import Deployment
from smoke.processes import Processes

pytestmark = [pytest.mark.disruptive, pytest.mark.full]

ROOT = Path("/var/lib/rabbitproof-second")
OFFSET = 1000


@pytest.fixture
def second(deployment: Deployment) -> Iterator[Mapping[str, object]]:
    """The variables of a second local deployment, which is gone after the test."""
    if not any(node.address == "127.0.0.1" for node in deployment.nodes):
        pytest.skip("needs an inventory whose nodes share this machine")
    variables: dict[str, object] = {"local_root": str(ROOT), "local_port_offset": OFFSET}
    yield variables
    if ROOT.exists():
        deployment.playbook("destroy", extra=variables)


def test_destroy_leaves_no_process_no_data_and_no_other_deployment_touched(
    deployment: Deployment, second: Mapping[str, object]
) -> None:
    before = Processes(deployment)

    deployment.playbook("site", extra=second)
    assert processes() != [], "the second deployment runs nothing"
    with socket.create_connection((deployment.balancer.address, deployment.balancer.port + OFFSET), timeout=5):
        pass

    deployment.playbook("destroy", extra=second)
    assert processes() == []
    assert not ROOT.exists()
    assert list((Path.home() / ".rabbitproof").glob(f"{ROOT.relative_to('/')}/*")) == []
    assert before.restarted() == set(), "the first deployment was restarted"

    deployment.playbook("destroy", extra=second)


def processes() -> list[str]:
    """Return the processes that carry the mark of the second deployment."""
    return [
        environment.parent.name
        for environment in Path("/proc").glob("[0-9]*/environ")
        if f"RABBITPROOF_ROOT={ROOT}" in read(environment).split("\0")
    ]


def read(environment: Path) -> str:
    """Return the environment of a process, nothing if it is gone."""
    try:
        return environment.read_text(errors="replace")
    except OSError:
        return ""
