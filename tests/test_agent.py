"""What a host tells HAProxy about its node (roles/rabbitmq/files/agent.py)."""

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.rendering import ROOT

PATH = ROOT / "roles/rabbitmq/files/agent.py"

# As printed by iproute2 6.15 on a node of a lab: its two peers, and a command line tool of its own.
OF_A_CLUSTER = """\
0      0      10.99.6.11:37710 10.99.6.13:25672
144    0      10.99.6.11:25672 10.99.6.12:58378
0      0      10.99.6.11:25672 10.99.6.11:40112
0      0      10.99.6.11:40112 10.99.6.11:25672
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


agent = load()


def test_peers_are_in_sight_whoever_connected_and_a_tool_of_the_own_host_is_none() -> None:
    assert agent.hosts_in_sight(OF_A_CLUSTER) == 3


def test_a_node_without_connections_sees_itself() -> None:
    assert agent.hosts_in_sight("") == 1


def test_a_peer_is_counted_once_whatever_connects_from_its_host() -> None:
    assert agent.hosts_in_sight(OF_A_CLUSTER + "0 0 10.99.6.11:25672 10.99.6.12:58380\n") == 3


def test_addresses_of_ipv6_are_told_from_their_ports() -> None:
    lines = "0 0 [fd00::1]:25672 [fd00::2]:40000\n0 0 [fd00::1]:25672 [fd00::1]:40000\n"
    assert agent.hosts_in_sight(lines) == 2


@pytest.mark.parametrize(
    ("in_sight", "nodes", "word"),
    [(3, 3, "up"), (2, 3, "up"), (1, 3, "down"), (3, 5, "up"), (2, 5, "down"), (1, 1, "up"), (1, 2, "up")],
)
def test_a_node_is_down_when_those_out_of_its_sight_could_be_a_majority(in_sight: int, nodes: int, word: str) -> None:
    assert agent.verdict(in_sight, nodes) == f"{word} #sees {in_sight} of {nodes} nodes\n"


def test_half_of_a_cluster_stays_since_the_other_half_is_no_majority() -> None:
    assert agent.verdict(2, 4).startswith("up ")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def port() -> Iterator[int]:
    """Where an agent answers, for a node of three whose distribution port is nobody's."""
    chosen = free_port()
    process = subprocess.Popen([sys.executable, str(PATH), "127.0.0.1", str(chosen), "3", str(free_port())])
    try:
        yield chosen
    finally:
        process.terminate()
        process.wait(10)


def ask(port: int) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                return b"".join(iter(lambda: connection.recv(100), b"")).decode()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.skipif(shutil.which("ss") is None, reason="there is no ss (iproute2) to ask")
def test_it_answers_every_connection_in_one_line_and_closes_it(port: int) -> None:
    assert [ask(port), ask(port)] == ["down #sees 1 of 3 nodes\n"] * 2
