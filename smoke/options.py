"""What the commands have in common: options, signals, and what they print."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from smoke.history import Event, Kind, append
from smoke.messages import Message
from smoke.session import Endpoint, Settings
from smoke.topology import QueueType, Topology

# How often a command that waits looks for a signal, in seconds: a handler may not touch a lock, so it only notes.
POLL = 0.2
# What could not be printed, and why.
_unprinted: list[OSError] = []

_NOTICES = {
    Kind.connected: "connected to {where}",
    Kind.ready: "ready on {where}",
    Kind.lost: "lost {where}: {detail}",
    Kind.backoff: "next try in {detail}",
    Kind.cancelled: "consumer of {where} cancelled by the broker",
    Kind.blocked: "blocked by the broker: {detail}",
    Kind.unblocked: "unblocked",
    Kind.rejected: "message rejected, not requeued: {detail}",
    Kind.requeued: "message rejected, requeued: {detail}",
    Kind.stale: "message not acknowledged, its channel is gone",
    Kind.returned: "message returned: {detail}",
    Kind.nack: "message not accepted by the broker",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all clients share; bad input exits 2 with one line naming the option."""
    parser = _Parser(prog=name, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("host", metavar="HOST", help="where the broker or balancer is")
    parser.add_argument("port", metavar="PORT", type=_integer(1, 65535), help="its AMQP port")
    parser.add_argument("--user", default="guest", help="AMQP user")
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file whose first line is the password (else the environment variable RABBITMQ_PASSWORD, else guest)",
    )
    parser.add_argument("--vhost", type=_short_string, default="/", help="virtual host")
    names = Topology()
    parser.add_argument("--exchange", type=_short_string, default=names.exchange, help="direct exchange")
    parser.add_argument("--queue", type=_short_string, default=names.queue, help="queue")
    parser.add_argument("--routing-key", type=_short_string, default=names.routing_key, help="key that binds them")
    parser.add_argument(
        "--queue-type",
        choices=[str(kind) for kind in QueueType],
        default=str(names.queue_type),
        help="type of the queue",
    )
    return parser


def add_endpoints(parser: argparse.ArgumentParser) -> None:
    """Add the option of clients that know more than one endpoint."""
    parser.add_argument(
        "--endpoint",
        type=_endpoint,
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="another one; repeat for more",
    )


def add_history(parser: argparse.ArgumentParser) -> None:
    """Add the option of clients that the judge can judge."""
    parser.add_argument(
        "--history",
        type=_history,
        metavar="FILE",
        help="file to which every event is added at once, for python -m smoke.judge",
    )


def add_consumer_options(parser: argparse.ArgumentParser) -> None:
    """Add what any consumer needs."""
    parser.add_argument("--consumer-tag", type=_short_string, default="cluster_test", help="tag of the consumer")
    parser.add_argument(
        "--prefetch", type=_integer(1, 65535), default=20, help="messages handed out ahead of acknowledgements"
    )


def add_producer_options(parser: argparse.ArgumentParser) -> None:
    """Add what the producer needs."""
    parser.add_argument("content", metavar="CONTENT", help="content of the message")
    parser.add_argument("--count", type=_integer(1, 10**9), help='send so many messages, "CONTENT 1", "CONTENT 2", ...')
    parser.add_argument("--rate", type=positive, default=10.0, help="of these, messages per second")
    parser.add_argument(
        "--confirm-timeout", type=positive, default=5.0, help="seconds without a confirm that end a connection"
    )
    parser.add_argument("--timeout", type=positive, default=math.inf, help="seconds for everything")


def settings(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Settings:
    """Make settings of parsed options; exits 2 if the password file cannot be read."""
    # The notices say in fewer words what pika logs.
    logging.getLogger("pika").addHandler(logging.NullHandler())
    return Settings(
        endpoints=(Endpoint(given.host, given.port), *getattr(given, "endpoint", ())),
        user=given.user,
        password=_password(parser, given.password_file),
        vhost=given.vhost,
        topology=Topology(given.exchange, given.queue, given.routing_key, QueueType(given.queue_type)),
    )


def observer(given: argparse.Namespace) -> Callable[[Event], None]:
    """Return what takes the events of a client: notices for people, and its history if one is asked for."""
    history: Path | None = given.history
    if history is None:
        return print_notice

    def observe(event: Event) -> None:
        # First, since a terminal may hold up who writes to it.
        try:
            append(history, event)
        except OSError as error:
            # An observer must not raise.
            with contextlib.suppress(OSError):
                print(f"event not recorded: {error}", file=sys.stderr, flush=True)
        print_notice(event)

    return observe


class Signals:
    """Notes the first SIGTERM or SIGINT; a second one has its usual effect."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self.received = True
        signal.signal(number, signal.SIG_DFL)


def print_received(message: Message) -> None:
    """Print a consumed message.

    Raises:
        OSError: it could not be printed, so it must not be acknowledged.
    """
    try:
        _print(f"Received: {message}")
    except OSError as error:
        if _end_command(error):
            # Until the command has ended its consumer: given back at once, the message would come again at once, until
            # its queue gives it up.
            time.sleep(5 * POLL)
        raise


def print_confirmed(message: Message) -> None:
    """Print a confirmed message; end the command if nobody reads that any more."""
    try:
        _print(f"Confirmed: {message}")
    except OSError as error:
        _end_command(error)


def unprinted() -> str:
    """Return why the command could not print what it should have, empty if it could or nobody was left to read it."""
    error = next((error for error in _unprinted if not isinstance(error, BrokenPipeError)), None)
    return f"its output could not be written: {error}" if error else ""


def print_notice(event: Event) -> None:
    """Print on stderr what an operator who watches a failover wants to know."""
    if event.kind in _NOTICES:
        # An observer must not raise, and a terminal that is gone is no reason to stop.
        with contextlib.suppress(OSError):
            print(_NOTICES[event.kind].format(where=event.where, detail=event.detail), file=sys.stderr, flush=True)


def fail(name: str, why: str) -> int:
    """Print one line on stderr and return the exit code of a failure."""
    print(f"{name}: {why}", file=sys.stderr)
    return 1


def positive(text: str) -> float:
    """Return a number above 0, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _end_command(error: OSError) -> bool:
    """End the command as SIGTERM does; True the first time. A second signal would kill it."""
    _unprinted.append(error)
    if len(_unprinted) > 1:
        return False
    signal.raise_signal(signal.SIGTERM)
    return True


def _print(line: str) -> None:
    # A character that the terminal does not know must not look like a message that cannot be processed.
    encoding = sys.stdout.encoding
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _password(parser: argparse.ArgumentParser, file: Path | None) -> str:
    if file is None:
        return os.environ.get("RABBITMQ_PASSWORD", "guest")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        parser.error(f"argument --password-file: {error}")
    if not lines:
        parser.error(f"argument --password-file: {file} is empty")
    return lines[0]


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse


def _short_string(text: str) -> str:
    # The limit of a short string (AMQP 0-9-1, 4.2.5.3).
    if not 0 < len(text.encode("utf-8", "surrogateescape")) <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of 1 to 255 bytes")
    return text


def _history(text: str) -> Path:
    path = Path(text)
    if path.suffix == ".gz":
        raise argparse.ArgumentTypeError(f"{text!r}: what is written line by line is not compressed")
    try:
        with path.open("ab"):
            return path
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return Endpoint(host.removeprefix("[").removesuffix("]"), _integer(1, 65535)(port))
