import importlib.util
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.rendering import ROOT, evaluate, role_variables

VARIABLES = role_variables("rabbitmq", {})
UPGRADES: dict[str, list[str]] = VARIABLES["__rabbitmq_upgrades"]
ERLANG: list[dict[str, str]] = VARIABLES["__rabbitmq_erlang"]
SERIES: list[str] = VARIABLES["__rabbitmq_series"]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


versions = load(ROOT / "roles/rabbitmq/filter_plugins/rabbitmq_versions.py")


# Written down from the documentation of the upgrade, not from roles/rabbitmq/vars.
@pytest.mark.parametrize(
    ("current", "wanted"),
    [
        ("3.10.8", "3.11.28"),
        ("3.11.18", "3.12"),
        ("3.11.28", "3.12.14"),
        ("3.12.14", "3.13.7"),
        ("3.13.7", "4.0"),
        ("3.13.7", "4.1.8"),
        ("3.13.7", "4.2"),
        ("4.0.5", "4.1"),
        ("4.0.5", "4.2.9"),
        ("4.1.8", "4.2.10"),
        ("4.2.9", "4.3.6"),
        ("4.0.5", "4.0.9"),
        ("4.2.9", "4.2.10"),
    ],
)
def test_a_supported_upgrade_is_one_step(current: str, wanted: str) -> None:
    assert len(versions.upgrade_path(current, wanted, UPGRADES)) == 2


@pytest.mark.parametrize(
    ("current", "wanted", "path"),
    [
        ("4.0.5", "4.3", "4.0 4.2 4.3"),
        ("4.1.8", "4.3.6", "4.1 4.2 4.3"),
        ("3.13.7", "4.3", "3.13 4.2 4.3"),
        ("3.12.14", "4.0", "3.12 3.13 4.0"),
        ("3.10.8", "4.3", "3.10 3.11.18 3.12 3.13 4.2 4.3"),
        ("3.11.8", "3.12", "3.11.8 3.11.18 3.12"),
        ("3.11.8", "3.13", "3.11.8 3.11.18 3.12 3.13"),
        ("3.11.28", "3.13", "3.11 3.12 3.13"),
    ],
)
def test_an_upgrade_that_leaves_out_a_step_names_all_of_them(current: str, wanted: str, path: str) -> None:
    assert versions.upgrade_path(current, wanted, UPGRADES) == path.split()


@pytest.mark.parametrize(
    ("current", "wanted"),
    [("4.3.6", "4.2"), ("4.0.9", "4.0.5"), ("4.2.10", "4.2.9"), ("4.0.5", "3.13"), ("3.9.1", "4.0")],
)
def test_there_is_no_way_back_and_none_from_what_is_not_supported(current: str, wanted: str) -> None:
    assert versions.upgrade_path(current, wanted, UPGRADES) == []


def test_every_series_can_be_reached_from_the_one_before() -> None:
    for before, after in pairwise(SERIES):
        assert versions.upgrade_path(f"{before}.99", after, UPGRADES) == [before, after]


# The first and the last Erlang that is supported, and a neighbour on each side that is not; from the documentation.
@pytest.mark.parametrize(
    ("rabbitmq", "below", "first", "last", "above"),
    [
        ("3.10.0", "23.1", "23.2", "24.3.4.17", "25.0"),
        ("3.10.7", "23.1", "23.2", "25.2.3", "25.3"),
        ("3.10.8", "24.1", "24.2", "25.2.3", "25.3"),
        ("3.10.14", "24.2", "24.3", "25.2.3", "25.3"),
        ("3.10.25", "24.3.4.7", "24.3.4.8", "25.3.2", "26.0"),
        ("3.11.28", "24.3", "25.0", "25.3.2", "26.0"),
        ("3.12.1", "24.3", "25.0", "26.0.2", "26.1"),
        ("3.12.5", "24.3", "25.0", "26.1.2", "26.2"),
        ("3.12.14", "24.3", "25.0", "26.2.5", "27.0"),
        ("3.13.7", "25.3", "26.0", "26.2.5", "27.0"),
        ("4.0.1", "26.1", "26.2", "26.2.5", "27.0"),
        ("4.0.5", "26.1", "26.2", "27.3.4.1", "28.0"),
        ("4.1.8", "26.1", "26.2", "27.3.4", "28.0"),
        ("4.2.8", "26.1", "26.2", "27.3.4", "28.0"),
        ("4.2.9", "26.2.5", "27.0", "27.3.4", "28.0"),
        ("4.3.0", "26.1", "26.2", "27.3.4", "28.0"),
        ("4.3.6", "26.2.5", "27.0", "27.3.4", "29.1.1"),
    ],
)
def test_the_range_of_erlang_begins_and_ends_where_it_should(
    rabbitmq: str, below: str, first: str, last: str, above: str
) -> None:
    def supported(erlang: str) -> bool:
        return bool(versions.erlang_is_supported(erlang, rabbitmq, ERLANG))

    assert [supported(erlang) for erlang in (below, first, last, above)] == [False, True, True, False]


def test_the_table_of_erlang_is_sorted_and_has_every_series() -> None:
    since = [versions.parse(row["since"]) for row in ERLANG]
    assert since == sorted(since)
    # 4.1 is supported on what 4.0.4 is.
    assert {f"{version[0]}.{version[1]}" for version in since} == set(SERIES) - {"4.1"}


@pytest.mark.parametrize(("erlang", "supported"), [("26", True), ("27", True), ("25", False), ("28", False)])
def test_a_prefix_is_supported_if_one_of_its_versions_is(erlang: str, supported: bool) -> None:
    assert versions.erlang_is_supported(erlang, "4.0.5", ERLANG) == supported


def test_a_series_has_the_range_of_its_newest_release() -> None:
    assert versions.supported_erlang("4.3", ERLANG)["since"] == "4.3.3"


@pytest.mark.parametrize(("source", "check"), [("distro", "warn"), ("team_rabbitmq", "refuse"), ("custom", "refuse")])
def test_only_the_distribution_may_have_an_erlang_that_is_not_supported(source: str, check: str) -> None:
    assert evaluate("__rabbitmq_erlang_check", "rabbitmq", {"rabbitmq_package_source": source}) == check


@pytest.mark.parametrize("asked", ["refuse", "warn"])
def test_what_is_asked_of_the_check_is_done_whatever_the_source(asked: str) -> None:
    given = {"rabbitmq_package_source": "custom", "rabbitmq_erlang_check": asked}
    assert evaluate("__rabbitmq_erlang_check", "rabbitmq", given) == asked


def test_a_complaint_about_erlang_names_host_versions_and_range() -> None:
    given = {
        "inventory_hostname": "broker1",
        "rabbitmq_deployed_version": "4.3.6",
        "rabbitmq_deployed_erlang": "29.1.1",
    }
    assert evaluate("__rabbitmq_erlang_fits", "rabbitmq", given) is False
    assert evaluate("__rabbitmq_erlang_complaint", "rabbitmq", given) == (
        "broker1 has or would get Erlang 29.1.1, but RabbitMQ 4.3.6 is supported from Erlang 27.0 to before 28."
    )


@pytest.mark.parametrize("unknown", ["rabbitmq_deployed_version", "rabbitmq_deployed_erlang"])
def test_what_is_not_known_yet_is_not_complained_of(unknown: str) -> None:
    given = {"rabbitmq_deployed_version": "4.3.6", "rabbitmq_deployed_erlang": "29.1.1"} | {unknown: ""}
    assert evaluate("__rabbitmq_erlang_fits", "rabbitmq", given) is True


@pytest.mark.parametrize(
    ("package", "upstream"),
    [
        ("4.0.5-6+deb13u2", "4.0.5"),
        ("1:27.3.4.1+dfsg-1+deb13u4", "27.3.4.1"),
        ("1:25.2.3+dfsg-1", "25.2.3"),
        ("3.12.1-1ubuntu1.2", "3.12.1"),
        ("(none)", ""),
    ],
)
def test_the_upstream_version_has_neither_epoch_nor_revision(package: str, upstream: str) -> None:
    assert versions.upstream(package) == upstream


@pytest.mark.parametrize(
    ("version", "prefix", "begins"),
    [("4.2.10", "4.2", True), ("4.2.10", "4.2.1", False), ("4.2.1", "4.2.1", True), ("", "4.2", False)],
)
def test_a_prefix_ends_where_a_number_ends(version: str, prefix: str, begins: bool) -> None:
    assert versions.begins_with(version, prefix) == begins


BARE = ["distribution debian/trixie", ""]
OFFERED = [
    *BARE,
    "offered rabbitmq-server 4.3.6-1",
    "offered rabbitmq-server 4.0.5-6+deb13u2",
    "candidate rabbitmq-server 4.3.6-1",
    "candidate erlang-base (none)",
]


@pytest.mark.parametrize(
    ("lines", "wanted", "complete", "expected"),
    [
        (BARE, "", True, ""),
        (BARE, "4.3", True, "4.3"),
        (OFFERED, "", True, "4.3.6"),
        (OFFERED, "4.0", True, "4.0.5"),
        (OFFERED, "4.2", True, "4.2"),
        (OFFERED, "", False, ""),
        ([*OFFERED, "installed rabbitmq-server 4.1.8-1"], "4.3", True, "4.1.8"),
    ],
    ids=[
        "nothing known",
        "only a wish",
        "candidate",
        "newest of the wish",
        "not offered",
        "sources missing",
        "installed",
    ],
)
def test_the_version_that_a_host_will_have(lines: list[str], wanted: str, complete: bool, expected: str) -> None:
    found: Any = versions.packages(lines)
    assert versions.expected(found, "rabbitmq-server", wanted, complete=complete) == expected


def test_a_package_without_candidate_has_no_version() -> None:
    assert versions.expected(versions.packages(OFFERED), "erlang-base", "", complete=True) == ""


def test_what_is_no_version_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'latest' is no version of the form"):
        versions.parse("latest")
