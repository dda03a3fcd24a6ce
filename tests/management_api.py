"""Runs tasks of the role against a management API of our own, which says what we want."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.rendering import ROOT

PASSWORD = "zz-monitoring-zz"
INVENTORY = ["rabbit@a", "rabbit@b", "rabbit@c"]


@dataclass
class Api:
    """What a node says to each path below /api/: one status and answer after the other, the last one for ever."""

    said: Mapping[str, list[tuple[int, Any]]]
    port: int = 0
    asked: dict[str, int] = field(default_factory=dict)

    def answer(self, path: str, login: str) -> tuple[int, Any]:
        if login != "Basic " + base64.b64encode(f"monitoring:{PASSWORD}".encode()).decode():
            return 401, {"error": "not_authorized"}
        name = path.removeprefix("/api/").split("?")[0]
        self.asked[name] = self.asked.get(name, 0) + 1
        return self.said[name][min(self.asked[name], len(self.said[name])) - 1]

    @contextmanager
    def served(self) -> Iterator[Api]:
        """Serve it on a port of its own."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = api.answer(self.path, self.headers["Authorization"])
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.port = server.server_address[1]
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@dataclass(frozen=True)
class Ran:
    """What an operator saw: the exit status, and the output without the folds of its lines."""

    status: int
    output: str


def run(tasks_from: str, directory: Path, variables: Mapping[str, Any], *options: str) -> Ran:
    """Run tasks of the role rabbitmq for one node, whose host is this one."""
    host = {
        "ansible_connection": "local",
        "rabbitmq_nodename": INVENTORY[0],
        "rabbitmq_cluster_nodes": INVENTORY,
        "rabbitmq_address": "127.0.0.1",
        "rabbitmq_amqp_port": 5672,
        "rabbitmq_monitoring_password": PASSWORD,
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "rabbitmq", "tasks_from": tasks_from}}],
    }
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"a": host | dict(variables)}}}))
    (directory / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={directory / 'hosts.yml'}",
            str(directory / "play.yml"),
            *options,
        ],
        check=False,
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "true", "HOME": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return Ran(done.returncode, " ".join(done.stdout.split()))
