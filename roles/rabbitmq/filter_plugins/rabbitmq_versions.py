"""What the tables in roles/rabbitmq/vars say of versions: which upgrade is supported, which Erlang is.

A version may be a prefix, as an operator gives it: "4.3" stands for every 4.3.x, and where one has to be chosen for the
newest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Version = tuple[int, ...]


def parse(version: str) -> Version:
    """Return the numbers of an upstream version; raise ValueError for what is none."""
    if not re.fullmatch(r"\d+([.]\d+)*", version):
        raise ValueError(f"{version!r} is no version of the form 4.3 or 4.3.6")
    return tuple(int(number) for number in version.split("."))


def after(version: Version) -> Version:
    """Return the first version that does not begin with this one."""
    return (*version[:-1], version[-1] + 1)


def upstream(package_version: str) -> str:
    """Return the upstream version of a Debian version: `1:27.3.4.1+dfsg-1` is 27.3.4.1; empty for what has none."""
    found = re.match(r"(?:\d+:)?(\d+(?:[.]\d+)*)", package_version)
    return found[1] if found else ""


def begins_with(version: str, prefix: str) -> bool:
    """Say whether a version is what a prefix stands for: 4.2.10 is not 4.2.1."""
    wanted = parse(prefix)
    return bool(version) and parse(version)[: len(wanted)] == wanted


def pattern(prefix: str) -> str:
    """Return a regular expression for the Debian versions that a prefix stands for, whatever their epoch.

    It is one for Python and for apt alike (POSIX extended).
    """
    return r"([0-9]+:)?" + re.escape(prefix) + r"([^0-9]|$)"


def packages(lines: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return what a host says of its packages, by state and name: `installed`, `offered` (newest first), `candidate`.

    A line is STATE NAME VERSION; other lines are ignored.
    """
    found: dict[str, dict[str, list[str]]] = {"installed": {}, "offered": {}, "candidate": {}}
    for line in lines:
        match line.split():
            case [state, name, version] if state in found and upstream(version):
                found[state].setdefault(name, []).append(upstream(version))
    return found


def expected(found: Mapping[str, Mapping[str, Sequence[str]]], name: str, wanted: str, *, complete: bool) -> str:
    """Return the version of a package that a host has or will have; empty if that is not known yet.

    Installed packages stay. `complete` says whether the host already has all sources that it should have: what it would
    take from a part of them means nothing.
    """
    if name in found["installed"]:
        return found["installed"][name][0]
    if wanted:
        return next((version for version in found["offered"].get(name, []) if begins_with(version, wanted)), wanted)
    return next(iter(found["candidate"].get(name, [])), "") if complete else ""


def upgrade_path(current: str, wanted: str, upgrades: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the supported way from one version to another, both included; empty if there is none (a downgrade).

    `upgrades` gives for each series what it can be upgraded from: a series, or the oldest release of one. A way of two
    elements is one step, which may be taken; in a longer one every element has to be deployed in its turn.
    """
    source, target = parse(current), parse(wanted)
    if source[:2] == target[:2]:
        return [current, wanted] if source < after(target) else []
    way = [_series(source)]
    for series in _shortest_way(source[:2], target[:2], upgrades)[1:]:
        origin = next(origin for origin in upgrades[series] if parse(origin)[:2] == parse(way[-1])[:2])
        if len(way) > 1:
            # Any release of a series will do as a stop, unless the next step asks for a younger one.
            way[-1] = origin
        elif source < parse(origin):
            way = [current, origin]
        way.append(series)
    return way if len(way) > 1 else []


def supported_erlang(rabbitmq: str, table: Sequence[Mapping[str, str]]) -> Mapping[str, str]:
    """Return the row of the table for a RabbitMQ version, `since` … `from` … `before`; it is sorted by `since`."""
    rows = [row for row in table if parse(row["since"]) < after(parse(rabbitmq))]
    return rows[-1] if rows else {}


def erlang_is_supported(erlang: str, rabbitmq: str, table: Sequence[Mapping[str, str]]) -> bool:
    """Say whether some Erlang that begins with `erlang` is supported by this RabbitMQ."""
    row = supported_erlang(rabbitmq, table)
    return bool(row) and parse(row["from"]) < after(parse(erlang)) and parse(erlang) < parse(row["before"])


def _shortest_way(source: Version, target: Version, upgrades: Mapping[str, Sequence[str]]) -> list[str]:
    ways = [[_series(source)]]
    while ways:
        way = ways.pop(0)
        for series, origins in upgrades.items():
            if any(parse(origin)[:2] == parse(way[-1]) for origin in origins):
                if parse(series) == target:
                    return [*way, series]
                ways.append([*way, series])
    return []


def _series(version: Version) -> str:
    return ".".join(map(str, version[:2]))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them by the names that templates and tasks use."""
        return {
            "rabbitmq_begins_with": begins_with,
            "rabbitmq_pattern": pattern,
            "rabbitmq_packages": packages,
            "rabbitmq_expected": expected,
            "rabbitmq_upgrade_path": upgrade_path,
            "rabbitmq_supported_erlang": supported_erlang,
            "rabbitmq_erlang_is_supported": erlang_is_supported,
        }
