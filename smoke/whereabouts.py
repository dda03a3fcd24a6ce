"""On which node each client is, as the brokers say: behind a balancer no client knows it itself."""

from __future__ import annotations

import threading

from smoke import management
from smoke.deployment import Deployment
from smoke.history import History, Kind, Reporter
from smoke.topology import Topology

# Seconds between two questions, asked only while there is a connection of which the answer is not known.
EVERY = 0.5


class Whereabouts:
    """Asks on which node each connection ends, and records the answer: a `located` event of the client.

    The answer comes up to some seconds late, since a broker collects what it says; it is about the latest connection of
    the client before it.

    Args:
        deployment: whose brokers to ask.
        topology: what the clients work with.
        history: where the connections are read, and the answers recorded.
    """

    def __init__(self, deployment: Deployment, topology: Topology, history: History) -> None:
        self._deployment = deployment
        self._topology = topology
        self._history = history
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="whereabouts", daemon=True)
        self._known = 0
        # The latest connection of each client, by its name, until it is located.
        self._sought: dict[str, str] = {}

    def start(self) -> None:
        """Begin to ask, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End what start() began."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            self._read()
            if self._sought:
                self._ask()

    def _read(self) -> None:
        for event in self._history.after(self._known):
            self._known += 1
            if event.kind is Kind.connected:
                self._sought[event.client] = event.detail
            elif event.kind is Kind.lost:
                self._sought.pop(event.client, None)

    def _ask(self) -> None:
        for node in self._deployment.nodes:
            try:
                connections = list(management.connections(self._deployment, self._topology, node))
            except OSError:
                # Perhaps the victim of the fault.
                continue
            nodes = {found["client_properties"]["connection_name"]: found.get("node", "") for found in connections}
            for client, name in list(self._sought.items()):
                if nodes.get(name):
                    Reporter(client, self._history)(Kind.located, where=nodes[name])
                    del self._sought[client]
            return
