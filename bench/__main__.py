"""Measure how long provisioning takes, and write docs/benchmarks.md.

Every run makes five hosts anew and measures, on these, the first deployment, one that changes nothing, and one that
restarts the three nodes one after the other for a changed configuration.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from bench.erlang import ErlangTools
from bench.report import Measured, Scenario, document, this_machine
from bench.timing import EventError, events, failures, outputs, timing

PROJECT = Path(__file__).resolve().parent.parent
INVENTORY = PROJECT / "bench" / "inventory"
INVENTORIES = (PROJECT / "inventory" / "lab", INVENTORY)
# Below the limit of the default, so that it is another value in every run.
CHANNEL_MAX = 1000
# Seconds in which Ansible ends after it was told to.
PATIENCE = 20

# What the hosts run, one line each; in the order of the document.
VERSIONS = r"""
. /etc/os-release; echo "Hosts=$PRETTY_NAME"
dpkg-query --show --showformat='${Package}=${Version}\n' rabbitmq-server erlang-base haproxy keepalived 2> /dev/null
true
"""
NAMES = {"rabbitmq-server": "RabbitMQ", "erlang-base": "Erlang", "haproxy": "HAProxy", "keepalived": "keepalived"}


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message is for the operator."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    """Run the benchmark; returns the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with _alone(), _lab():
            measured = [one for number in range(1, options.runs + 1) for one in _run(number, options.runs)]
            versions = _versions()
        options.output.write_text(document(measured, this_machine(), versions, options.runs, datetime.now(UTC)))
    except (BenchmarkError, EventError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was written", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"written: {options.output}")
    return 0


def _options() -> argparse.Namespace:
    parser = _Parser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=_runs, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument(
        "--output",
        type=_output,
        default=PROJECT / "docs" / "benchmarks.md",
        metavar="FILE",
        help="what to write (default: docs/benchmarks.md)",
    )
    return parser.parse_args()


def _runs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return int(text)


def _output(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in a directory that exists")
    return path


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second benchmark from taking away the hosts of the first."""
    with (INVENTORY / "hosts.yml").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError("another benchmark is running here; wait until it has ended") from None
        yield


@contextmanager
def _lab() -> Iterator[None]:
    """Leave no host behind, however the benchmark ends."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _lab_playbook("destroy")


def _run(number: int, runs: int) -> Iterator[Measured]:
    """Measure everything once, on hosts that are made for it."""
    _lab_playbook("destroy")
    _lab_playbook("create")
    containers = _containers()
    for scenario in Scenario:
        settings = {"rabbitmq_settings": {"channel_max": CHANNEL_MAX + number}} if scenario == Scenario.roll else {}
        one = _measure(scenario, containers, f"--extra-vars={json.dumps(settings)}")
        print(f"run {number} of {runs}: {scenario}: {one.timing.total:.1f} s", flush=True)
        yield one


def _measure(scenario: Scenario, containers: Sequence[str], *options: str) -> Measured:
    started = time.time()
    with ErlangTools(containers) as tools:
        code, printed = _ansible("ansible-playbook", "playbooks/site.yml", *options, as_events=True)
    ended = time.time()
    seen = events(printed.splitlines())
    if code != 0:
        raise BenchmarkError(f"{scenario} failed: {(failures(seen) or [_last_line(printed)])[0]}")
    one = Measured(scenario, timing(seen, started, ended), tools.started)
    # A figure for something else than what it is said to be is worse than none.
    if scenario == Scenario.nothing and one.timing.counts.changed:
        raise BenchmarkError(f"the run that should change nothing changed {one.timing.counts.changed} things")
    if scenario == Scenario.roll and one.timing.nodes_rolled != 3:
        raise BenchmarkError(
            f"the changed configuration reached {one.timing.nodes_rolled} nodes one at a time, and not 3"
        )
    return one


def _lab_playbook(name: str) -> None:
    code, printed = _ansible("ansible-playbook", f"molecule/shared/{name}.yml")
    if code != 0:
        raise BenchmarkError(f"molecule/shared/{name}.yml failed:\n{printed[-2000:].strip()}")


def _containers() -> list[str]:
    """Return the ids of the containers that are the hosts."""
    command = "podman ps --quiet --no-trunc --filter label=rabbitproof.lab={{ lab_name }}"
    found = _ask("localhost", "--become", f"--args={command}")["localhost"].split()
    if not found:
        raise BenchmarkError("podman names no container of the lab that was created just now")
    return found


def _versions() -> dict[str, str]:
    """Return what the hosts run, and what deployed it."""
    _, ansible = _ansible("ansible-playbook", "--version")
    found = {"Ansible": ansible.splitlines()[0].partition("core ")[2].rstrip("]")}
    for printed in _ask("lab", f"--args={VERSIONS}").values():
        pairs = dict(line.strip().split("=", 1) for line in printed.splitlines() if "=" in line)
        found |= {NAMES.get(name, name): version for name, version in pairs.items()}
    return found


def _ask(hosts: str, *options: str) -> dict[str, str]:
    """Run a shell command on hosts; returns what it printed on each."""
    code, printed = _ansible("ansible", hosts, "--module-name=raw", *options, as_events=True)
    seen = events(printed.splitlines())
    if code != 0:
        raise BenchmarkError((failures(seen) or [_last_line(printed)])[0])
    return outputs(seen)


def _ansible(command: str, *arguments: str, as_events: bool = False) -> tuple[int, str]:
    """Run a command of Ansible on the inventory of the benchmark; returns its exit code and what it printed."""
    environment = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_JSON_INDENT": "0"}
    if as_events:
        environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.jsonl", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / command),
            *(f"--inventory={inventory}" for inventory in INVENTORIES),
            *arguments,
        ],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate()
    except BaseException:
        # Not in the middle of a task, which would go on while its host is taken away.
        process.terminate()
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return process.returncode, printed


def _last_line(printed: str) -> str:
    return (printed.strip().splitlines() or ["Ansible said nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
