"""Tell HAProxy whether this node sees enough of its peers (agent-check, configuration manual 5.2).

agent.py ADDRESS PORT NODES DISTRIBUTION_PORT...

Answers every connection to ADDRESS:PORT with "up" or "down", and closes it. What is counted are the established
connections of the Erlang distribution: what the node itself goes by, read from the kernel, so that nobody needs a
password and the broker does nothing for it. "down" is said only where the nodes out of sight could be a majority by
themselves: a node that sees half of its cluster knows that nobody else has more.

HAProxy takes an agent that does not answer as one that said nothing new, so this need not be more reliable than the
node.
"""

from __future__ import annotations

import socketserver
import subprocess
import sys

PATIENCE = 2.0


def hosts_in_sight(connections: str) -> int:
    """Return on how many hosts nodes are connected, this one included.

    Takes what `ss -Htn state established` prints: two queue lengths, the local and the peer's address with port. A
    command line tool of this host is no peer: its connection has one address on both sides.
    """
    peers = set()
    for line in connections.splitlines():
        local, peer = (address.rpartition(":")[0] for address in line.split()[2:4])
        if local != peer:
            peers.add(peer)
    return len(peers) + 1


def verdict(in_sight: int, nodes: int) -> str:
    """Return the answer to HAProxy; what follows the word is shown on its statistics page."""
    word = "down" if 2 * in_sight < nodes else "up"
    return f"{word} #sees {in_sight} of {nodes} nodes\n"


def distribution_connections(ports: list[str]) -> str:
    """Return the connections from and to these ports, filtered by the kernel.

    Raises:
        OSError, subprocess.SubprocessError: they cannot be read.
    """
    chosen = " or ".join(f"sport = :{port} or dport = :{port}" for port in ports)
    command = ["ss", "-Htn", "state", "established", f"( {chosen} )"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


class Agent(socketserver.TCPServer):
    """Answers one question at a time, for which it waits for nobody but the kernel."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, nodes: int, distribution_ports: list[str]) -> None:
        self.nodes = nodes
        self.distribution_ports = distribution_ports
        super().__init__((address, port), Answer)


class Answer(socketserver.BaseRequestHandler):
    """The answer to one connection."""

    server: Agent

    def handle(self) -> None:
        """Answer; closing is left to the server. An error is printed, and no answer."""
        self.request.settimeout(PATIENCE)
        seen = hosts_in_sight(distribution_connections(self.server.distribution_ports))
        self.request.sendall(verdict(seen, self.server.nodes).encode())


if __name__ == "__main__":
    Agent(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]).serve_forever()
