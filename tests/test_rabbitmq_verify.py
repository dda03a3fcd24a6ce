"""Runs the role's verify against a management API of our own, which says what we want."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering import ROOT

PASSWORD = "zz-monitoring-zz"
INVENTORY = ["rabbit@a", "rabbit@b", "rabbit@c"]
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "rabbitmq", "tasks_from": "verify"}}],
    }
]


@dataclass
class Api:
    """What a node says of its cluster: one answer after the other, the last one for ever."""

    answers: list[Any]
    port: int = 0
    asked: int = field(default=0)

    def answer(self, login: str) -> tuple[int, Any]:
        if login != "Basic " + base64.b64encode(f"monitoring:{PASSWORD}".encode()).decode():
            return 401, {"error": "not_authorized"}
        self.asked += 1
        return 200, self.answers[min(self.asked, len(self.answers)) - 1]


@dataclass(frozen=True)
class Verified:
    """What an operator saw."""

    status: int
    output: str


Verify = Callable[..., Verified]


def members(*running: str, down: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [{"name": name, "running": True, "mem_alarm": False, "disk_free_alarm": False} for name in running] + [
        {"name": name, "running": False} for name in down
    ]


@pytest.fixture
def serve() -> Iterator[Callable[[Api], Api]]:
    servers = []

    def start(api: Api) -> Api:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path.startswith("/api/nodes?columns=")
                status, answer = api.answer(self.headers["Authorization"])
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        api.port = server.server_address[1]
        return api

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def verify(tmp_path: Path, serve: Callable[[Api], Api]) -> Verify:
    def run(*answers: Any, password: str = PASSWORD, timeout: int = 1, options: tuple[str, ...] = ()) -> Verified:
        api = serve(Api(list(answers)))
        variables = {
            "ansible_connection": "local",
            "rabbitmq_nodename": INVENTORY[0],
            "rabbitmq_cluster_nodes": INVENTORY,
            "rabbitmq_address": "127.0.0.1",
            "rabbitmq_amqp_port": 5672,
            "rabbitmq_management_port": api.port,
            "rabbitmq_monitoring_password": password,
            "rabbitmq_api_timeout": timeout,
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": variables}}}))
        (tmp_path / "play.yml").write_text(yaml.safe_dump(PLAY))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                f"--inventory={tmp_path / 'hosts.yml'}",
                str(tmp_path / "play.yml"),
                *options,
            ],
            check=False,
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "true", "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        # One line a message, however it was folded.
        return Verified(done.returncode, " ".join(done.stdout.split()))

    return run


def test_a_cluster_that_is_the_inventorys_passes_and_shows_no_password(verify: Verify) -> None:
    run = verify(members(*INVENTORY), options=("-vvv", "--check", "--diff"))
    assert run.status == 0, run.output
    assert "changed=0" in run.output
    assert PASSWORD not in run.output
    assert "WARNING: " not in run.output


def test_a_node_that_learns_of_its_peers_a_little_later_is_waited_for(verify: Verify) -> None:
    nothing_yet = [{"name": name} for name in INVENTORY]
    run = verify(nothing_yet, members(*INVENTORY[:2], down=("rabbit@c",)), members(*INVENTORY), timeout=30)
    assert run.status == 0, run.output


def test_a_node_that_does_not_run_is_refused(verify: Verify) -> None:
    run = verify(members(*INVENTORY[:2], down=("rabbit@c",)))
    assert run.status != 0
    assert (
        "rabbit@a sees the members rabbit@a, rabbit@b, rabbit@c, of which rabbit@a, rabbit@b run; "
        "the inventory says rabbit@a, rabbit@b, rabbit@c." in run.output
    )


def test_a_node_that_formed_a_cluster_of_its_own_is_refused(verify: Verify) -> None:
    run = verify(members("rabbit@a"))
    assert run.status != 0
    assert "rabbit@a sees the members rabbit@a, of which rabbit@a run; the inventory says rabbit@a, " in run.output


def test_a_partition_is_refused_with_how_to_end_it(verify: Verify) -> None:
    nodes = members(*INVENTORY)
    nodes[2]["partitions"] = ["rabbit@a"]
    run = verify(nodes)
    assert run.status != 0
    assert "is partitioned, each side having gone on without the other: rabbit@c is apart from rabbit@a. " in run.output
    assert "playbooks/stop.yml and then playbooks/start.yml" in run.output


def test_a_member_that_the_inventory_does_not_name_gets_a_warning(verify: Verify) -> None:
    run = verify(members(*INVENTORY, down=("rabbit@old",)))
    assert run.status == 0, run.output
    assert "WARNING: rabbit@old belongs to the cluster of rabbit@a, and the inventory does not name it." in run.output


def test_an_inventory_that_names_a_minority_of_the_members_is_refused(verify: Verify) -> None:
    run = verify(members(*INVENTORY, "rabbit@d", "rabbit@e", "rabbit@f"))
    assert run.status != 0
    assert "rabbit@d, rabbit@e, rabbit@f, of which" in run.output


def test_an_alarm_gets_a_warning(verify: Verify) -> None:
    nodes = members(*INVENTORY)
    nodes[0]["disk_free_alarm"] = True
    run = verify(nodes)
    assert run.status == 0, run.output
    assert "WARNING: rabbit@a has a disk alarm" in run.output


def test_a_login_that_is_refused_is_an_error_at_once_and_shows_no_password(verify: Verify) -> None:
    run = verify(members(*INVENTORY), password="zz-wrong-zz", timeout=30, options=("-vvv",))
    assert run.status != 0
    assert "refuses the login of rabbitmq_monitoring_user" in run.output
    assert "playbooks/objects.yml makes the users what the inventory says" in run.output
    assert "zz-" not in run.output
