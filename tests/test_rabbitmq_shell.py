"""Runs the shell commands of the role for real: what a node is compared by, and what is waited for."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import ROOT, evaluate, read_trusted, render

NODES = ["rabbit@broker1", "rabbit@broker2", "rabbit@broker3"]
NODE: dict[str, Any] = {
    "rabbitmq_nodename": NODES[0],
    "rabbitmq_cluster_nodes": NODES,
    "rabbitmq_address": "127.0.0.1",
    "rabbitmq_amqp_port": 5672,
    "rabbitmq_management_port": 15672,
    "rabbitmq_deployed_version": "4.3.6",
}
FILES = ("rabbitmq.conf", "advanced.config", "rabbitmq-env.conf", "enabled_plugins")


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run it as a task does that uses ansible.builtin.raw: by the shell that every Debian has."""
    return subprocess.run(["/bin/sh", "-c", script], check=False, capture_output=True, text=True, timeout=30)


Fingerprint = Callable[..., str]


@pytest.fixture
def fingerprint(tmp_path: Path) -> Fingerprint:
    def take(**options: Any) -> str:
        variables = NODE | {"rabbitmq_config_dir": str(tmp_path)} | options
        for name in FILES:
            (tmp_path / name).write_text(render(name, "rabbitmq", variables))
        taken = shell(evaluate("__rabbitmq_fingerprint", "rabbitmq", variables))
        assert taken.returncode == 0, taken.stderr
        assert len(taken.stdout.strip()) == 64
        return taken.stdout.strip()

    return take


@pytest.mark.parametrize(
    "options",
    [
        {"rabbitmq_cluster_nodes": [*NODES, "rabbit@broker4"]},
        {"rabbitmq_cluster_nodes": NODES[:2]},
        {"rabbitmq_log_level": "debug"},
        {"rabbitmq_plugins": ["rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_shovel"]},
    ],
    ids=["a node more", "a node less", "rabbitmq_log_level", "rabbitmq_plugins"],
)
def test_what_a_running_node_need_not_be_restarted_for_leaves_the_fingerprint_alone(
    options: dict[str, Any], fingerprint: Fingerprint
) -> None:
    assert fingerprint(**options) == fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {"rabbitmq_cluster_name": "other"},
        {"rabbitmq_heartbeat": 11},
        {"rabbitmq_connection_log_level": "debug"},
        {"rabbitmq_listen_address": "10.0.0.11"},
        {"rabbitmq_plugins": ["rabbitmq_management"]},
        {"rabbitmq_log_dir": "/other"},
        {"rabbitmq_epmd_port": 4370},
        {"rabbitmq_settings": {"channel_max": 100}},
        {"rabbitmq_settings": {"log.file.rotation.size": 1000}},
        {"rabbitmq_settings": {"cluster_keepalive_interval": 1000}},
    ],
    ids=str,
)
def test_what_takes_a_restart_changes_the_fingerprint(options: dict[str, Any], fingerprint: Fingerprint) -> None:
    assert fingerprint(**options) != fingerprint()


def test_a_comment_leaves_the_fingerprint_alone(fingerprint: Fingerprint, tmp_path: Path) -> None:
    before = fingerprint()
    path = tmp_path / "rabbitmq.conf"
    path.write_text(path.read_text().replace("\n## ", "\n\n# Another word on\n## "))
    again = shell(evaluate("__rabbitmq_fingerprint", "rabbitmq", NODE | {"rabbitmq_config_dir": str(tmp_path)}))
    assert again.stdout.strip() == before


def test_a_node_starts_with_what_ansible_would_ask_for(fingerprint: Fingerprint, tmp_path: Path) -> None:
    wanted = fingerprint()
    started = shell(f'. {tmp_path}/rabbitmq-env.conf; echo "$RABBITPROOF_STARTED_WITH"')
    assert started.stdout.strip() == f"rabbit@broker1:{wanted}"


def gate(script: str, *, patience: int = 1) -> subprocess.CompletedProcess[str]:
    function = evaluate("__rabbitmq_gate", "rabbitmq", NODE | {"rabbitmq_quorum_timeout": patience})
    # Ten times as impatient between two questions.
    return shell("sleep() { command sleep 0.1; }\n" + function + script)


def test_a_gate_that_is_open_is_passed_at_once() -> None:
    passed = gate("sleep() { echo slept; }\ngate 'all is well' true\necho on\n")
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, "on\n", "")


def test_a_gate_that_opens_is_waited_for(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    question = f"ask() {{ echo try >> {tries}; [ $(wc -l < {tries}) -ge 3 ]; }}\n"
    passed = gate(f"{question}gate 'the third try' ask\necho on\n", patience=20)
    assert (passed.returncode, passed.stdout) == (0, "on\n")
    assert tries.read_text() == "try\n" * 3


def test_a_gate_that_stays_closed_says_what_it_waited_for_and_the_last_answer() -> None:
    question = "ask() { echo \"100% no, '$1'\"; echo and a complaint >&2; return 69; }\n"
    closed = gate(f"{question}gate 'every queue has a leader' ask me\necho on\n")
    assert closed.returncode == 1
    assert closed.stdout == (
        "waited 1 s until every queue has a leader; the last answer:\n100% no, 'me'\nand a complaint\n"
    )


def test_a_question_that_cannot_be_asked_is_a_gate_that_stays_closed() -> None:
    closed = gate("gate 'the tool is there' no-such-tool --timeout 5\n")
    assert closed.returncode == 1
    assert "no-such-tool" in closed.stdout


def test_gates_have_one_deadline_together() -> None:
    closed = gate("gate 'the first' true\ngate 'the second' false\ngate 'the third' true\n")
    assert closed.returncode == 1
    assert closed.stdout.startswith("waited 1 s until the second;")


def listens(port: int) -> int:
    function = evaluate("__rabbitmq_listens", "rabbitmq", NODE | {"rabbitmq_amqp_port": port})
    return shell(f"{function}listens\n").returncode


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_node_that_accepts_clients_is_known_by_its_port(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert listens(port) == 1, "it is bound, and does not listen"
        listener.listen()
        assert listens(port) == 0


def test_a_port_that_only_a_client_has_is_none_that_is_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        assert listens(client.getsockname()[1]) == 1


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Wait for a node: what its pid file holds at one look after the other, and whether it listens after the last."""
    lives = subprocess.Popen(["sleep", "60"])

    def wait(*pids: str, comes_up: bool, patience: int = 20) -> subprocess.CompletedProcess[str]:
        file = tmp_path / f"{NODES[0]}.pid"
        file.write_text("")
        script = evaluate(
            "__rabbitmq_await_clients",
            "rabbitmq",
            NODE | {"rabbitmq_data_dir": str(tmp_path), "rabbitmq_start_timeout": patience},
        )
        (tmp_path / "looks").write_text("".join(f"{pid}\n" for pid in pids).replace("LIVES", str(lives.pid)))
        # Each look is a sleep of the script.
        sleeps = f"""sleep() {{
            command sleep 0.01; look=$((look + 1))
            sed -n "$look p" {tmp_path}/looks > {file}
        }}
        look=0
        """
        up = f"listens() {{ [ $look -gt {len(pids)} ] && {str(comes_up).lower()}; }}\n"
        declared, awaited = script.split("deadline=")
        return shell(f"{sleeps}{declared}{up}deadline={awaited}")

    yield wait
    lives.kill()
    lives.wait()


# Beyond what the kernel gives to anybody.
DEAD, DEAD_TOO = "4194305", "4194306"


def test_a_node_that_comes_up_is_waited_for(start: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert start("", "LIVES", "LIVES", comes_up=True).returncode == 0


def test_a_node_that_was_killed_is_waited_for_while_its_dead_process_is_found(
    start: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert start(DEAD, DEAD, DEAD, DEAD, "", "LIVES", comes_up=True).returncode == 0


def test_a_node_whose_processes_end_one_after_the_other_is_not(
    start: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    waited = start("LIVES", DEAD, DEAD, "", DEAD_TOO, comes_up=False)
    assert waited.returncode == 1
    assert waited.stdout == "its process ended while it started, and so did the next one\n"


def test_a_node_that_does_not_come_up_in_time_is_named_with_the_time(
    start: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    waited = start("LIVES", comes_up=False, patience=1)
    assert (waited.returncode, waited.stdout) == (1, "waited 1 s until it accepts clients\n")


def reaches(epmd: int, *distribution: int) -> subprocess.CompletedProcess[str]:
    """Look for peers on this machine, at the port of their epmd and the ports of their nodes."""
    (task,) = read_trusted(ROOT / "roles/rabbitmq/tasks/reaches.yml")
    peers = {
        f"broker{number}": {"rabbitmq_host": {"name": "127.0.0.1", "distribution_port": port}}
        for number, port in enumerate(distribution, 2)
    }
    variables = {"rabbitmq_peers": list(peers), "hostvars": peers, "rabbitmq_epmd_port": epmd}
    return shell(evaluate("__command", "rabbitmq", NODE | variables | {"__command": task["ansible.builtin.raw"]}))


def test_a_node_that_reaches_one_of_its_peers_may_join() -> None:
    with socket.create_server(("127.0.0.1", 0)) as epmd, socket.create_server(("127.0.0.1", 0)) as node:
        found = reaches(epmd.getsockname()[1], 1, node.getsockname()[1])
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("there", ["epmd", "node", "nobody"])
def test_a_node_that_reaches_none_of_its_peers_is_told_so(there: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = reaches(port if there == "epmd" else 1, port if there == "node" else 1, 1)
    assert found.returncode == 1
    assert found.stdout.startswith("it reaches none of broker2, broker3 at their epmd (port ")


def test_what_an_interrupted_run_owes_a_node_and_the_ports_in_its_files_are_read(tmp_path: Path) -> None:
    read, *_ = read_trusted(ROOT / "roles/rabbitmq/tasks/fingerprint.yml")
    directories = {name: str(tmp_path) for name in ("rabbitmq_config_dir", "rabbitmq_data_dir", "rabbitmq_home")}
    variables = NODE | directories
    for name in FILES:
        (tmp_path / name).write_text(render(name, "rabbitmq", variables))
    for due in ("joined", "restarted"):
        (tmp_path / f"due.{due}").touch()
    question = evaluate(
        "__question", "rabbitmq", variables | {"__question": read["vars"]["__rabbitmq_service_question"]}
    )
    said = shell(question).stdout.splitlines()
    assert {"due joined", "due restarted"} <= set(said)
    assert evaluate("__rabbitmq_moves", "rabbitmq", variables | {"__rabbitmq_look": said}) == []
    moved = variables | {"__rabbitmq_look": said, "rabbitmq_management_port": 15999, "rabbitmq_epmd_port": 999}
    assert [move["wanted"] for move in evaluate("__rabbitmq_moves", "rabbitmq", moved)] == ["15999", "999"]
