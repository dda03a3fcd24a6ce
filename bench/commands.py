"""The commands of Debian's package amqp-tools, as clients whose throughput is compared."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.clients import CONTENT, COUNT, LIMIT, Client, ClientError
from smoke.messages import Message, encode
from smoke.session import Settings


def publish_with_command(settings: Settings) -> float:
    """Publish with one amqp-publish, a line for each message; it knows no confirms.

    It ends when the broker has closed the channel, and so has read every message; more was not promised.

    Raises:
        ClientError: it failed.
    """
    topology = settings.topology
    lines = b"".join(encode(Message(CONTENT, time.time())) + b"\n" for _ in range(COUNT))
    options = ["--line-buffered", "--persistent", f"--exchange={topology.exchange}"]
    return _command(settings, ["amqp-publish", *options, f"--routing-key={topology.routing_key}"], [], lines)


def consume_with_command(settings: Settings, *, prefetch: int) -> float:
    """Consume with amqp-consume, which starts a process for each message and acknowledges it when that has ended.

    Raises:
        ClientError: it failed.
    """
    options = [f"--queue={settings.topology.queue}", f"--count={COUNT}", f"--prefetch-count={prefetch}"]
    return _command(settings, ["amqp-consume", *options], ["cat"], b"")


def missing() -> str:
    """Say why the commands cannot be measured, if they cannot."""
    if not all(shutil.which(command) for command in ("amqp-publish", "amqp-consume")):
        return "they are not installed (`apt-get install amqp-tools`)"
    said = subprocess.run(["amqp-publish", "--help"], capture_output=True, text=True, check=False)
    if "--authfile" not in said.stdout:
        return "these are too old to read a password from a file (`--authfile`), and everybody could see it otherwise"
    return ""


PUBLISHERS: dict[str, Client] = {"`amqp-publish --line-buffered`, no confirms: sent": publish_with_command}
CONSUMERS: dict[str, Client] = {
    "`amqp-consume`, prefetch 20, a process for each message": partial(consume_with_command, prefetch=20)
}


def _command(settings: Settings, command: list[str], arguments: list[str], given: bytes) -> float:
    endpoint = settings.endpoints[0]
    with tempfile.TemporaryDirectory() as directory:
        # Not on the command line, which everybody can read.
        login = Path(directory) / "login"
        with os.fdopen(os.open(login, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"username:{settings.user}\npassword:{settings.password}\n")
        whole = [
            *command,
            *(f"--server={endpoint.host}", f"--port={endpoint.port}", f"--vhost={settings.vhost}"),
            f"--authfile={login}",
            *arguments,
        ]
        began = time.monotonic()
        try:
            subprocess.run(
                whole, input=given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT, check=True
            )
        except subprocess.CalledProcessError as error:
            raise ClientError(f"{command[0]}: {error.stderr.decode(errors='replace').strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise ClientError(f"{command[0]} was not done within {LIMIT:g} s") from error
        return time.monotonic() - began
