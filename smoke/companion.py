"""A second consumer, in a process of its own: it can be killed, stopped and continued as an application can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from smoke.history import Event, parse
from smoke.session import Settings

COMMAND = Path(__file__).with_name("consumer.py")
# How often what it has recorded is read, in seconds: History.since() forgives lateness of up to 1 s.
EVERY = 0.1


class Companion:
    """The command of our consumer, from the beginning of the block on; killed at its end, if it still runs.

    Args:
        settings: of which it is given the first endpoint, the user, the password, and the names of the topology.
        file: where it records its history; must not exist yet.
        observe: takes its events, a little late; called from a thread of its own, and must not raise.
        name: what the client is called in these events.
    """

    def __init__(
        self, settings: Settings, file: Path, observe: Callable[[Event], None], *, name: str = "companion"
    ) -> None:
        topology, endpoint = settings.topology, settings.endpoints[0]
        self._command = [
            *(sys.executable, str(COMMAND), endpoint.host, str(endpoint.port)),
            *(f"--user={settings.user}", f"--history={file}", f"--queue-type={topology.queue_type}"),
            *(f"--exchange={topology.exchange}", f"--queue={topology.queue}", f"--routing-key={topology.routing_key}"),
        ]
        self._environment = {**os.environ, "RABBITMQ_PASSWORD": settings.password}
        self._file = file
        self._observe = observe
        self._name = name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follow {name}", daemon=True)

    def __enter__(self) -> Companion:
        self._file.touch(exist_ok=False)
        # What it complains of is of interest if the test fails; what it receives is in its history.
        self._process = subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.wait(None)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float | None) -> int:
        """Wait for its end, for so many seconds, and until its last event was taken.

        Returns:
            Its exit code, or the negative number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it has not ended.
        """
        code = self._process.wait(timeout)
        self._ended.set()
        self._thread.join()
        return code

    def _follow(self) -> None:
        line = ""
        with self._file.open(encoding="utf-8") as file:
            while True:
                # Asked before the last look, so that this look sees everything.
                ended = self._ended.is_set()
                while part := file.readline():
                    line += part
                    # It may be in the middle of a line.
                    if line.endswith("\n"):
                        self._observe(replace(parse(line), client=self._name))
                        line = ""
                if ended:
                    return
                self._ended.wait(EVERY)
