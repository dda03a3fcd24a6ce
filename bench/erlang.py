"""Counts the Erlang machines that are started on the hosts of a lab for a command line tool."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
# Such a machine lives for half a second or more, so that none is missed; looking costs some hundredths of one core.
PAUSE = 0.05
# A process is a shell, or several one after the other, before it becomes an Erlang machine.
YOUTH = 4.0


class ErlangTools:
    """While it is entered, notes rabbitmqctl, rabbitmq-diagnostics and their siblings in containers.

    The processes of a container are seen from the machine that runs it, so that nothing is done on the hosts.
    """

    def __init__(self, containers: Collection[str]) -> None:
        self._containers = containers
        self._born: dict[str, float] = {}
        self._counted: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def started(self) -> int:
        """How many there were."""
        return len(self._counted)

    def __enter__(self) -> ErlangTools:
        # What runs already belongs to somebody else.
        self._born = dict.fromkeys(_processes(), -math.inf)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE):
            now = time.monotonic()
            self._born = {process: self._born.get(process, now) for process in _processes()}
            for process, born in self._born.items():
                if now - born < YOUTH and process not in self._counted and self._is_tool(process):
                    self._counted.add(process)

    def _is_tool(self, process: str) -> bool:
        try:
            if (PROC / process / "comm").read_text() != "beam.smp\n":
                return False
            command = (PROC / process / "cmdline").read_bytes()
            groups = (PROC / process / "cgroup").read_text()
        except OSError:
            # It has ended.
            return False
        return is_tool(command) and any(container in groups for container in self._containers)


def is_tool(command: bytes) -> bool:
    """Whether the command line (arguments ended by a zero byte) is that of a tool, and not that of a node."""
    return b"escript" in command


def _processes() -> Iterator[str]:
    return (entry.name for entry in PROC.iterdir() if entry.name.isdigit())
