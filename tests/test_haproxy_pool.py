"""The pool of a HAProxy that runs: how it is read, and changed without a reload or kept over one."""

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.rendering import ROOT, evaluate, read_trusted, render, setting_lines

SECTION = "rabbitmq_lab_cluster"
SERVERS = [
    {"name": f"rabbit{n}", "address": f"10.98.0.1{n}", "port": 5672, "management_port": 15672} for n in (1, 2, 3)
]
POOL: dict[str, Any] = {
    "haproxy_servers": SERVERS,
    "haproxy_broker_version": "4.3.6",
    "haproxy_section": SECTION,
    "haproxy_socket": "/run/haproxy/admin.sock",
}
CHECKS = ("http", "amqp", "tcp")

HEADER = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port"
)


def row(number: int, *, address: str = "", admin: int = 0, port: int = 5672, check_port: int = 15672) -> str:
    """A line of "show servers state" (management guide, 9.3), recorded from a lab."""
    address = address or f"10.98.0.1{number}"
    server = f"3 {SECTION} {number} rabbit{number} {address}"
    return f"{server} 2 {admin} 1 1 100 15 3 4 6 0 0 0 - {port} - 0 {check_port} - - 0"


def answer(*rows: str, line_end: str = "\n") -> dict[str, Any]:
    """What tasks/inspect.yml reads: "show info", the state of the pool, and the hash of the file."""
    lines = ["Name: HAProxy", "Version: 3.0.11", "Maxconn: 4000", "", "1", HEADER, *rows, "", "0" * 64 + "  -"]
    return {"__haproxy_said": "".join(line + line_end for line in lines)}


def read(name: str, *rows: str, line_end: str = "\n", **options: Any) -> Any:
    return evaluate(name, "haproxy", POOL | answer(*rows, line_end=line_end) | options)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_pool_as_it_should_be_needs_nothing(line_end: str) -> None:
    rows = [row(number) for number in (1, 2, 3)]
    assert read("__haproxy_pool", *rows, line_end=line_end) == ["rabbit1", "rabbit2", "rabbit3"]
    assert read("__haproxy_pool_out", *rows, line_end=line_end) == []
    assert read("__haproxy_moved", *rows, line_end=line_end) == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_server_in_maintenance_or_drained_is_out_of_the_pool(line_end: str) -> None:
    rows = [row(1, admin=8), row(2, admin=1), row(3)]
    assert read("__haproxy_pool_out", *rows, line_end=line_end) == ["rabbit1", "rabbit2"]
    assert read("__haproxy_moved", *rows, line_end=line_end) == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("change", [{"address": "10.98.0.99"}, {"port": 5673}, {"check_port": 15673}], ids=str)
def test_a_server_that_is_reached_or_checked_elsewhere_has_moved(change: dict[str, Any], line_end: str) -> None:
    assert read("__haproxy_moved", row(1), row(2, **change), row(3), line_end=line_end) == ["rabbit2"]


def test_a_check_without_a_port_of_its_own_is_not_compared() -> None:
    rows = [row(number, check_port=0) for number in (1, 2, 3)]
    assert read("__haproxy_moved", *rows, haproxy_check="amqp") == []
    assert read("__haproxy_moved", *rows, haproxy_check="http") == ["rabbit1", "rabbit2", "rabbit3"]


def test_a_name_that_haproxy_has_resolved_is_no_other_address() -> None:
    servers = [SERVERS[0] | {"address": "rabbit1.example.com"}]
    assert read("__haproxy_moved", row(1), haproxy_servers=servers) == []
    assert read("__haproxy_moved", row(1, port=5673), haproxy_servers=servers) == ["rabbit1"]


def test_a_port_given_as_text_is_compared_as_a_number() -> None:
    servers = [SERVERS[0] | {"port": "5672", "management_port": "15672"}]
    assert read("__haproxy_moved", row(1), haproxy_servers=servers) == []


def test_a_server_that_is_new_or_gone_has_not_moved() -> None:
    assert read("__haproxy_moved", row(1), row(4)) == []
    assert read("__haproxy_pool", row(1), row(4)) == ["rabbit1", "rabbit4"]


def test_the_servers_of_another_section_are_not_ours() -> None:
    assert read("__haproxy_pool", row(1), row(2).replace(SECTION, "other")) == ["rabbit1"]


@pytest.mark.parametrize("name", ["__haproxy_pool", "__haproxy_pool_out", "__haproxy_moved"])
def test_where_no_haproxy_answers_there_is_no_pool(name: str) -> None:
    assert evaluate(name, "haproxy", POOL | {"__haproxy_said": ""}) == []


def command(file: str, task: str, options: dict[str, Any], item: Any) -> str:
    """The shell command of a task of the role, for one item of its loop."""
    (found,) = [each for each in read_trusted(ROOT / f"roles/haproxy/tasks/{file}.yml") if each["name"] == task]
    return str(
        evaluate("__command", "haproxy", POOL | options | {"__command": found["ansible.builtin.raw"], "item": item})
    )


def add(options: dict[str, Any], name: str) -> str:
    lines = {line["name"]: line for line in evaluate("__haproxy_lines", "haproxy", POOL | options)}
    return command("pool", "pool | Add the servers that are new", options, lines[name])


SWITCHES: dict[str, tuple[Any, Any]] = {
    "haproxy_slowstart": (0, 30000),
    "haproxy_server_maxconn": (0, 500),
    "haproxy_shutdown_sessions": (True, False),
    "haproxy_user_timeout": (0, 5000),
    "haproxy_backup_servers": ([], ["rabbit2"]),
    "haproxy_servers": (SERVERS, [server | {"agent_port": 15690} for server in SERVERS]),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_server_that_is_added_to_a_running_haproxy_has_the_options_of_the_file(check: str) -> None:
    for values in product(*SWITCHES.values()):
        options = dict(zip(SWITCHES, values, strict=True)) | {"haproxy_check": check}
        lines = list(setting_lines(render("haproxy.cfg", "haproxy", POOL | options)))
        (defaults,) = [line.removeprefix("default-server ") for line in lines if line.startswith("default-server ")]
        for written in [line for line in lines if line.startswith("server ")]:
            name = written.split()[1]
            added = re.search(r'say "add server \$name (.*?)"', add(options, name))
            assert added
            # Which HAProxy does not accept here.
            accepted = defaults.removesuffix(" tcp-ut 5000ms")
            assert f"server {name} {added[1]}" == f"{written} {accepted}"


@dataclass
class Balancer:
    """A HAProxy of our own, run as the role would."""

    directory: Path
    options: dict[str, Any]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def write(self, **options: Any) -> None:
        self.options |= options
        (self.directory / "haproxy.cfg").write_text(render("haproxy.cfg", "haproxy", POOL | self.options))

    def ask(self, question: str) -> str:
        return self.shell(f"echo '{question}' | socat -t 2 stdio unix-connect:{self.directory}/s")

    def shell(self, script: str) -> str:
        done = subprocess.run(["/bin/sh", "-c", script], check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def read(self, name: str) -> Any:
        before = self.ask(f"show info;show servers state {SECTION}")
        return evaluate(name, "haproxy", POOL | self.options | {"__haproxy_said": before})

    def wait(self) -> None:
        """Until a process with the configuration that was written last answers."""
        mark = evaluate("__haproxy_mark", "haproxy", POOL | self.options)
        deadline = time.monotonic() + 20
        while (
            mark
            not in self.shell(
                f"echo 'show info' | socat stdio unix-connect:{self.directory}/s 2>&1 || true"
            ).splitlines()
        ):
            assert time.monotonic() < deadline, "HAProxy does not answer with this configuration"
            time.sleep(0.05)

    def start(self) -> None:
        self.shell(evaluate("__haproxy_forget_state", "haproxy", POOL | self.options))
        haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if haproxy is None or shutil.which("socat") is None:
            pytest.fail("haproxy or socat is not installed; `make check` installs them")
        self.process = subprocess.Popen(
            [haproxy, "-W", "-db", "-f", str(self.directory / "haproxy.cfg")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait()

    def reload(self) -> None:
        for script in evaluate("__haproxy_reload", "haproxy", POOL | self.options):
            self.shell(script)
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)
        self.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def balancer(tmp_path: Path) -> Iterator[Balancer]:
    port, stats_port = free_ports(2)
    options = {
        # Addresses of this machine at which nobody answers: it does not matter here what the checks find.
        "haproxy_servers": [server | {"address": "127.0.0.1", "port": 1, "management_port": 2} for server in SERVERS],
        "haproxy_listen_address": "127.0.0.1",
        "haproxy_port": port,
        "haproxy_stats_port": stats_port,
        "haproxy_config_dir": str(tmp_path),
        "haproxy_socket": f"{tmp_path}/s",
        "haproxy_state_file": f"{tmp_path}/server-state",
        "haproxy_log": "stdout format raw daemon",
        "haproxy_drop_privileges": False,
        "haproxy_maxconn": 100,
    }
    balancer = Balancer(tmp_path, options)
    yield balancer
    if balancer.process is not None:
        balancer.process.terminate()
        balancer.process.wait(timeout=10)


def test_servers_are_added_to_and_removed_from_a_running_haproxy(balancer: Balancer) -> None:
    # Every option that a server can have.
    balancer.write(haproxy_check="http", haproxy_slowstart=1000, haproxy_server_maxconn=10)
    balancer.start()
    assert balancer.read("__haproxy_pool") == ["rabbit1", "rabbit2", "rabbit3"]
    assert balancer.read("__haproxy_moved") == []

    fourth = {"name": "rabbit4", "address": "127.0.0.1", "port": 3, "management_port": 4}
    balancer.write(haproxy_servers=[*balancer.options["haproxy_servers"], fourth])
    balancer.shell(add(balancer.options, "rabbit4"))
    assert balancer.read("__haproxy_pool") == ["rabbit1", "rabbit2", "rabbit3", "rabbit4"]
    assert balancer.read("__haproxy_pool_out") == []
    assert balancer.read("__haproxy_moved") == []

    task = "pool | Remove the servers that the inventory does not name any more"
    for name in ("rabbit4", "rabbit1"):
        balancer.shell(command("pool", task, balancer.options, name))
    assert balancer.read("__haproxy_pool") == ["rabbit2", "rabbit3"]


def configured(balancer: Balancer) -> subprocess.CompletedProcess[str]:
    task = "apply | Wait until a process with this configuration has a server that passed its check"
    patience = evaluate("__haproxy_patience", "haproxy", POOL | balancer.options)
    script = command("apply", task, balancer.options, None).replace(f"+ {patience}))", "+ 2))")
    return subprocess.run(["/bin/sh", "-c", script], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("answers", [True, False], ids=["passes", "fails"])
def test_a_balancer_is_configured_once_a_server_has_passed_its_check(answers: bool, balancer: Balancer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if answers else 1
        sound = balancer.options["haproxy_servers"][0] | {"port": port}
        balancer.write(
            haproxy_servers=[sound, *balancer.options["haproxy_servers"][1:]],
            haproxy_check="tcp",
            haproxy_check_inter=100,
        )
        balancer.start()
        found = configured(balancer)
    assert found.returncode == (0 if answers else 1), found.stdout
    assert ("no server passed its check" in found.stdout) == (not answers)


def test_a_balancer_that_runs_something_else_is_not_configured(balancer: Balancer) -> None:
    balancer.write(haproxy_check="tcp")
    balancer.start()
    balancer.options |= {"haproxy_maxconn": 200}
    assert "does not answer with the configuration that was written" in configured(balancer).stdout


def test_a_server_with_an_agent_is_added_with_its_last_resort(balancer: Balancer) -> None:
    servers = [server | {"agent_port": 1} for server in balancer.options["haproxy_servers"]]
    balancer.write(haproxy_servers=servers, haproxy_user_timeout=5000)
    balancer.start()
    fourth = servers[0] | {"name": "rabbit4"}
    balancer.write(haproxy_servers=[*servers, fourth])
    for name in ("rabbit4", "rabbit4:last-resort"):
        balancer.shell(add(balancer.options, name))
    assert set(balancer.read("__haproxy_pool")) == set(balancer.read("__haproxy_wanted"))
    assert len(balancer.read("__haproxy_pool")) == 8
    # The fifteenth column is the state of the agent; 2 is enabled (management guide, "show servers state").
    rows = [row.split() for row in balancer.ask(f"show servers state {SECTION}").splitlines()]
    agents = {row[3]: int(row[14]) & 2 for row in rows if len(row) > 14 and row[3].startswith("rabbit4")}
    assert agents == {"rabbit4": 2, "rabbit4:last-resort": 0}


def test_what_is_out_of_the_pool_is_put_back_last_resorts_as_well(balancer: Balancer) -> None:
    servers = [server | {"agent_port": 1} for server in balancer.options["haproxy_servers"]]
    balancer.write(haproxy_servers=servers)
    balancer.start()
    out = ["rabbit1", "rabbit2:last-resort"]
    for name in out:
        balancer.ask(f"set server {SECTION}/{name} state maint")
    assert balancer.read("__haproxy_pool_out") == out
    task = "admit | Put back the servers that an interrupted run took out"
    balancer.shell(command("admit", task, balancer.options, None))
    assert balancer.read("__haproxy_pool_out") == []


@pytest.mark.parametrize(("before", "after"), [("amqp", "http"), ("http", "amqp"), ("http", "http")])
def test_a_reload_keeps_who_is_drained_and_takes_everything_else_from_the_new_file(
    before: str, after: str, balancer: Balancer
) -> None:
    balancer.write(haproxy_check=before)
    balancer.start()
    balancer.ask(f"set server {SECTION}/rabbit2 state drain")
    moved = balancer.options["haproxy_servers"][0] | {"address": "127.0.0.2", "port": 7, "management_port": 8}
    balancer.write(
        haproxy_check=after, haproxy_maxconn=200, haproxy_servers=[moved, *balancer.options["haproxy_servers"][1:]]
    )
    assert "rabbit1" in balancer.read("__haproxy_moved")
    state = balancer.ask(f"show servers state {SECTION}")
    balancer.shell(
        command(
            "apply",
            "apply | Move servers to their new ports",
            balancer.options | {"__haproxy_said": state},
            moved,
        )
    )
    balancer.reload()
    assert balancer.read("__haproxy_moved") == []
    assert balancer.read("__haproxy_pool_out") == ["rabbit2"]
    check_ports = {line.split()[21] for line in balancer.ask(f"show servers state {SECTION}").splitlines()[2:] if line}
    assert check_ports == ({"2", "8"} if after == "http" else {"0"})
