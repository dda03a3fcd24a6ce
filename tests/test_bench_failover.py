import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import failover
from bench.failover import SETTINGS, measure
from bench.failover_report import Felt, Series, load, save, section
from bench.faults import FAULTS
from bench.lab import INVENTORY, PROJECT, BenchmarkError, Lab
from bench.report import Machine
from smoke import journal
from smoke.deployment import Deployment
from smoke.history import History, Kind
from smoke.stream import RATE, Stream
from smoke.topology import QueueType
from tests.rendering import ROLES, ROOT, inventory_variables, read_yaml

OVERLAYS = PROJECT / "bench/settings"
MACHINE = Machine(model="Processor", cores=2, memory_gib=7.8, kernel="Linux 6.1")
OPTIONS: dict[str, dict[str, Any]] = {
    name: option
    for role in ROLES
    for name, option in read_yaml(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"][
        "options"
    ].items()
}


def of(name: str) -> dict[str, Any]:
    return dict(read_yaml(OVERLAYS / name / "group_vars/all.yml"))


def felt(silence: float | None, **others: Any) -> Felt:
    usual: dict[str, Any] = {"settings": "book", "fault": "killed", "recovered": True, "whole": True}
    return Felt(**(usual | others), silence=silence)


BEGAN = datetime(2026, 11, 25, tzinfo=UTC)


def series(name: str, *measured: Felt, broken: str = "") -> Series:
    told: dict[str, object] = {"haproxy_profile": "default", "haproxy_check": "tcp"}
    return Series(name, MACHINE, BEGAN, 3, {"RabbitMQ": "4.0.5"}, told, list(measured), broken)


def text_of(*measured: Felt, broken: str = "") -> str:
    names = dict.fromkeys(one.settings for one in measured)
    columns = [series(name, *(one for one in measured if one.settings == name), broken=broken) for name in names]
    return section(columns, {"killed": 0.7}, 90)


def test_every_settings_has_its_directory() -> None:
    assert {path.name for path in OVERLAYS.iterdir()} == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_one_that_a_role_takes(name: str) -> None:
    types = {"int": int, "bool": bool, "str": str}
    for variable, value in of(name).items():
        if variable != "deployment_profile":
            option = OPTIONS[variable]
            assert type(value) is types[option["type"]], variable
            assert value in option.get("choices", [value]), variable


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_win_over_those_of_the_lab(name: str) -> None:
    variables = inventory_variables("lb1", inventory=ROOT / "inventory/lab", overlays=[INVENTORY, OVERLAYS / name])
    assert variables["lab_name"] == "rabbitproof-bench"
    assert {variable: variables[variable] for variable in of(name)} == of(name)


@pytest.mark.parametrize("name", SETTINGS[4:])
def test_settings_of_others_have_none_of_our_ways_to_notice_a_failure(name: str) -> None:
    settings = of(name)
    assert (settings["deployment_profile"], settings["haproxy_shutdown_sessions"]) == ("default", False)
    assert (settings["rabbitmq_agent_port"], settings["rabbitmq_peer_user_timeout"]) == (0, 0)
    assert settings["haproxy_check_fastinter"] == settings["haproxy_check_downinter"] == settings["haproxy_check_inter"]


def test_the_table_has_medians_with_their_spread() -> None:
    text = text_of(felt(30.0), felt(1.04), felt(2.0), felt(0.5, settings="lan"))
    assert "| fault | book | lan | gate of `lan` |" in text
    assert "| killed | 2.0 (1.0 to 30.0) | 0.5 | 0.7 |" in text
    assert "No confirmed message was lost." in text
    assert "| book | 3 times | 2026-11-25 | 2 | 8 GiB | Processor | Linux 6.1 | 4.0.5 |" in text


def test_the_table_marks_what_did_not_recover_by_itself() -> None:
    text = text_of(felt(95.0, recovered=False), felt(2.0, fault="stopped", whole=False), felt(None, fault="cut"))
    assert "| killed | 95.0 * |" in text
    assert "| stopped | 2.0 † |" in text
    assert "| cut | not measured |" in text


def test_a_median_of_fewer_runs_says_so() -> None:
    text = text_of(felt(2.0), felt(None, whole=False, complaint="messages flow: not within 60 s"))
    assert "| killed | 2.0, 1 of 2 † |" in text
    assert "- book, killed: messages flow: not within 60 s\n" in text


def test_lost_messages_are_counted_and_their_fault_is_named() -> None:
    assert "Of the confirmed messages were lost: 3 with book, killed." in text_of(felt(2.0, lost=3), felt(2.0))


def test_settings_that_were_given_up_are_named() -> None:
    assert "- book, given up: a node was lost\n" in text_of(felt(2.0), broken="a node was lost")


def test_the_settings_in_force_are_told() -> None:
    text = text_of(felt(2.0))
    assert "| `haproxy_check` | tcp |" in text
    assert "haproxy_profile" not in text


class Silent:
    """A stream of which nothing arrives."""

    def wait_for(self, *_: object, **__: object) -> None:
        raise AssertionError("messages flow: not within 90 s")


def test_a_fault_that_messages_do_not_survive_is_a_result() -> None:
    assert not failover._flows(cast(Stream, Silent()))


def test_whatever_goes_wrong_is_a_result_and_its_history_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def broken(_: Deployment) -> Iterator[None]:
        with journal.recording(journal.Recording(History(), QueueType.QUORUM, RATE)):
            journal.note(Kind.fault, "a node was frozen")
        raise KeyError(f"{PROJECT}/smoke and\n{Path.home()}/.rabbitproof")
        yield

    monkeypatch.setattr(failover, "flowing", broken)
    got = failover._once(cast(Deployment, None), "book", next(iter(FAULTS)), tmp_path / "kept" / "1.jsonl.gz")
    assert (got.silence, got.whole, got.complaint) == (None, False, r"'smoke and\n~/.rabbitproof'")
    (event,) = History.load(tmp_path / "kept" / "1.jsonl.gz").events()
    assert event.detail == "a node was frozen"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No hosts; deploying bosh fails, and of openstack-ansible nothing becomes whole. Returns what was deployed."""
    made: list[str] = []

    def deployed(_: Lab, name: str) -> Deployment:
        made.append(name)
        if name == "bosh":
            raise BenchmarkError("deployment of bosh failed: rabbit1: Refuse it")
        described = SimpleNamespace(settings={"haproxy_check": name}, nodes=[SimpleNamespace(settings={})])
        return cast(Deployment, SimpleNamespace(balancer=described, nodes=described.nodes))

    def mended(lab: Lab, name: str, _: Deployment) -> Deployment:
        made.append("mended")
        return deployed(lab, name)

    monkeypatch.setattr(failover, "_deployed", deployed)
    monkeypatch.setattr(failover, "_mended", mended)
    monkeypatch.setattr(
        failover,
        "_once",
        lambda _, name, fault, __: Felt(name, fault, 1.0, recovered=True, whole=name != "openstack-ansible"),
    )
    monkeypatch.setattr(Lab, "versions", lambda _: {"RabbitMQ": "4.0.5", "Erlang": "27", "HAProxy": "3.0.11"})
    return made


def test_settings_that_cannot_be_deployed_do_not_keep_the_others_from_being_measured(
    lab: list[str], tmp_path: Path
) -> None:
    measured = measure(1, ["bosh", "lan"], tmp_path / "kept")
    assert "| fault | lan | gate of `lan` |" in next(measured)
    with pytest.raises(BenchmarkError, match="not be measured to the end: bosh"):
        next(measured)
    assert lab == ["bosh", "lan"]


def test_settings_measured_before_keep_their_column(lab: list[str], tmp_path: Path) -> None:
    (before,) = measure(1, ["book"], tmp_path)
    (text,) = measure(1, ["lan"], tmp_path)
    assert "| fault | book | gate of `lan` |" in before
    assert "| fault | lan | book | gate of `lan` |" in text, "in the order of the document"
    *_, text = measure(2, ["book"], tmp_path)
    assert "| book | 2 times |" in text
    assert lab == ["book", "lan", "book"]


@pytest.mark.usefixtures("lab")
def test_figures_are_kept_and_told_each_time_all_faults_were_measured(tmp_path: Path) -> None:
    measured = measure(2, ["lan"], tmp_path)
    assert "| lan | once |" in next(measured)
    assert len(load(tmp_path, "lan")[0].felt) == len(FAULTS)
    assert "| lan | 2 times |" in next(measured)


@pytest.mark.usefixtures("lab")
def test_more_figures_are_added_to_those_that_are_kept(tmp_path: Path) -> None:
    list(measure(1, ["lan"], tmp_path))
    *_, text = measure(2, ["lan"], tmp_path, more=True)
    assert text.index("| lan | once |") < text.index("| lan | 2 times |")
    assert [len(series.felt) for series in load(tmp_path, "lan")] == [len(FAULTS), 2 * len(FAULTS)]
    assert "| fault | lan | gate of `lan` |" in text, "one column"


@pytest.mark.usefixtures("lab")
def test_figures_of_other_versions_are_not_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    list(measure(1, ["lan"], tmp_path))
    before = load(tmp_path, "lan")
    monkeypatch.setattr(Lab, "versions", lambda _: {"RabbitMQ": "4.3.6"})
    with pytest.raises(BenchmarkError, match="not be measured to the end: lan"):
        list(measure(1, ["lan"], tmp_path, more=True))
    assert "other versions or settings: measure anew, without --more" in capsys.readouterr().out
    assert load(tmp_path, "lan") == before


@pytest.mark.usefixtures("lab")
def test_half_a_round_replaces_nothing_and_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(measure(1, ["openstack-ansible"], tmp_path))
    before = load(tmp_path, "openstack-ansible")
    assert len(before[0].felt) == len(FAULTS)

    def lost(*_: object) -> Deployment:
        raise BenchmarkError("it does not come back")

    monkeypatch.setattr(failover, "_mended", lost)
    with pytest.raises(BenchmarkError, match=r"not be measured to the end: openstack-ansible \(0 of 2 runs\)"):
        list(measure(2, ["openstack-ansible"], tmp_path))
    assert load(tmp_path, "openstack-ansible") == before


def test_what_is_kept_is_read_as_it_was(tmp_path: Path) -> None:
    whole = [series("lan", felt(1.5), felt(None, complaint="nothing"), broken="a node was lost"), series("lan")]
    save(tmp_path, whole)
    assert load(tmp_path, "lan") == whole
    assert load(tmp_path, "book") == []


def test_what_is_no_result_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "lan.json").write_text('[{"settings": "lan"}]')
    with pytest.raises(ValueError, match=r"lan\.json is no result of this benchmark: remove it"):
        load(tmp_path, "lan")


def test_the_next_fault_meets_a_deployment_that_is_whole(lab: list[str], tmp_path: Path) -> None:
    list(measure(1, ["openstack-ansible"], tmp_path))
    assert lab.count("mended") == len(FAULTS)


class Recorder:
    """A deployment that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.nodes = (SimpleNamespace(name="a", nodename="rabbit@a"),)

    def holder(self) -> SimpleNamespace:
        return SimpleNamespace(name="lb2")

    def run(self, host: SimpleNamespace, command: str) -> None:
        self.done.append(f"{host.name}: {command}")


def test_a_balancer_that_was_killed_serves_again_whatever_happens() -> None:
    deployment = Recorder()
    fault = FAULTS["HAProxy killed that holds the virtual address"]
    with pytest.raises(KeyError), fault.breaks(cast(Deployment, deployment), cast(Stream, None)):
        raise KeyError
    killed, healed = deployment.done
    assert re.match("lb2: systemctl mask .*SIGKILL", killed)
    assert healed == "lb2: systemctl unmask --runtime haproxy && systemctl start haproxy"
