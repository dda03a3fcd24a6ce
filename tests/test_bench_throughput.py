import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench import commands
from bench.clients import COUNT, ClientError
from bench.report import Machine
from bench.throughput_report import Rate, Run, section
from smoke.session import Endpoint, Settings
from smoke.topology import Topology

MACHINE = Machine(model="Processor", cores=2, memory_gib=7.8, kernel="Linux 6.1")
SETTINGS = Settings(
    endpoints=(Endpoint("10.99.9.11", 5672),), user="app", password="secret", topology=Topology("e", "q", "k")
)
# Notes its arguments, the file with the login and the number of lines it is given, and does as it is told.
COMMAND = """#!/usr/bin/env python3
import json, os, sys
if sys.argv[1:] == ["--help"]:
    print(os.environ["HELP"])
    sys.exit()
login = next(word.partition("=")[2] for word in sys.argv if word.startswith("--authfile="))
said = {"arguments": sys.argv[1:], "login": open(login).read(), "mode": os.stat(login).st_mode & 0o777}
said["lines"] = sys.stdin.buffer.read().count(b"\\n")
json.dump(said, open(os.environ["SAID"], "w"))
print("connection refused", file=sys.stderr)
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands that only note how they are called; returns where."""
    for name in ("amqp-publish", "amqp-consume"):
        command = tmp_path / name
        command.write_text(COMMAND)
        command.chmod(stat.S_IRWXU)
    said = tmp_path / "said"
    for variable, value in {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said), "CODE": "0"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HELP", "  --authfile=file  path to file")
    return said


def rate(per_second: float | None, **others: Any) -> Rate:
    usual: dict[str, Any] = {"client": "pika", "consumes": False, "path": "direct"}
    return Rate(**(usual | others), per_second=per_second)


def text_of(*rates: Rate, missing: str = "") -> str:
    began = datetime(2026, 11, 25, tzinfo=UTC)
    return section(Run(MACHINE, 3, COUNT, began, {"pika": "1.4.4"}, missing, list(rates)))


def test_the_tables_have_medians_with_their_spread() -> None:
    text = text_of(
        *(rate(figure) for figure in (900.4, 1000.0, 1100.0)),
        rate(800.0, path="through the balancer"),
        rate(5000.0, consumes=True),
    )
    assert (
        "| client | direct | through the balancer |\n| --- | --- | --- |\n| pika | 1000 (900 to 1100) | 800 |" in text
    )
    assert "| client | direct |\n| --- | --- |\n| pika | 5000 |" in text
    assert "Could not be measured" not in text


def test_what_could_not_be_measured_is_named_with_its_reason() -> None:
    text = text_of(rate(None, complaint="refused"), rate(1.0, path="through the balancer"), missing="no such command")
    assert "| pika | not measured | 1 |" in text
    assert "- pika, direct: refused\n" in text
    assert "`amqp-publish` and `amqp-consume` were not measured: no such command." in text


def test_a_password_is_on_no_command_line(tools: Path) -> None:
    assert commands.publish_with_command(SETTINGS) > 0
    said = json.loads(tools.read_text())
    assert "secret" not in " ".join(said["arguments"])
    assert (said["login"], said["mode"]) == ("username:app\npassword:secret\n", 0o600)
    assert {"--server=10.99.9.11", "--port=5672", "--vhost=/", "--exchange=e", "--routing-key=k"} < set(
        said["arguments"]
    )
    assert said["lines"] == COUNT


def test_the_command_that_takes_the_messages_comes_last(tools: Path) -> None:
    commands.consume_with_command(SETTINGS, prefetch=20)
    arguments = json.loads(tools.read_text())["arguments"]
    assert arguments[-1] == "cat"
    assert {"--queue=q", f"--count={COUNT}", "--prefetch-count=20"} < set(arguments)


@pytest.mark.usefixtures("tools")
def test_a_command_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(ClientError, match="amqp-publish: connection refused"):
        commands.publish_with_command(SETTINGS)


@pytest.mark.usefixtures("tools")
def test_commands_that_read_a_password_from_a_file_are_measured() -> None:
    assert commands.missing() == ""


@pytest.mark.usefixtures("tools")
def test_commands_that_would_show_a_password_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELP", "  --password=password")
    assert "too old" in commands.missing()


def test_commands_that_are_not_there_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install amqp-tools" in commands.missing()
