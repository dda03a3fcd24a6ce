"""Measure provisioning, what failures cost, and the throughput of the clients, and write docs/benchmarks.md.

A run of one of the three parts leaves what the document says of the others as it is.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from bench import failover, provisioning, throughput
from bench.lab import PROJECT, BenchmarkError, alone, nothing_left
from bench.sections import Part, replaced
from bench.timing import EventError
from smoke.deployment import PlaybookError

ALL = "all"

# What measures a part: gives its text, each time there is more to say.
PARTS: dict[Part, Callable[[argparse.Namespace], Iterator[str]]] = {
    Part.provisioning: lambda given: provisioning.measure(given.runs),
    Part.failover: lambda given: failover.measure(
        given.runs, given.only or failover.SETTINGS, given.output.with_suffix(""), more=given.more
    ),
    Part.throughput: lambda given: throughput.measure(given.runs),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> int:
    """Run the benchmark; returns the exit code."""
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # That connections break is what is measured.
    logging.getLogger("pika").addHandler(logging.NullHandler())
    try:
        with alone(), nothing_left():
            for part in list(Part) if given.part == ALL else [Part(given.part)]:
                for text in PARTS[part](given):
                    _write(given.output, part, text)
    except (BenchmarkError, EventError, PlaybookError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for; bad input exits 2 with one line."""
    parser = _Parser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "part",
        nargs="?",
        choices=[*map(str, Part), ALL],
        default=ALL,
        metavar="PART",
        help=f"{', '.join(Part)} or {ALL} (default)",
    )
    parser.add_argument("--runs", type=_runs, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument(
        "--only",
        action="append",
        choices=failover.SETTINGS,
        metavar="SETTINGS",
        help=f"of the part failover, only these settings; repeat for more: {', '.join(failover.SETTINGS)}",
    )
    parser.add_argument(
        "--more",
        action="store_true",
        help="of the part failover: add to the figures of earlier runs, instead of replacing them",
    )
    parser.add_argument(
        "--output",
        type=_output,
        default=PROJECT / "docs" / "benchmarks.md",
        metavar="FILE",
        help="what to write, and figures below the same name without its ending (default: docs/benchmarks.md)",
    )
    given = parser.parse_args(arguments)
    if given.only and given.part not in (Part.failover, ALL):
        parser.error(f"argument --only: the part {given.part} has no settings to choose from")
    if given.more and given.part != Part.failover:
        parser.error(f"argument --more: only the part {Part.failover} keeps the figures of earlier runs")
    return given


def _write(path: Path, part: Part, text: str) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(replaced(before, part, text), encoding="utf-8")
    print(f"written: {part} in {path}", flush=True)


def _runs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100")
    return int(text)


def _output(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in a directory that exists")
    if not path.suffix:
        # Found out before hours of measuring: the figures get the name without it.
        raise argparse.ArgumentTypeError(f"{text!r} has no ending, such as .md")
    return path


if __name__ == "__main__":
    sys.exit(main())
