import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from smoke import journal, page
from smoke.deployment import parse_facts
from smoke.environment import together
from smoke.history import Event, History, Kind
from smoke.journal import Recording
from smoke.judge import judge
from smoke.progress import status
from smoke.report import Case, Report
from smoke.table import table
from smoke.topology import QueueType
from smoke.watcher import changes


@pytest.fixture(autouse=True)
def _nothing_recorded() -> Iterator[None]:
    yield
    journal.take()
    journal.take_remarks()


def recorded(*, lost: bool = False, kept: bool = True, gate: float | None = None) -> Recording:
    """A stream of three messages, the last of which is delivered a second late or not at all."""
    history = History()
    for number in range(3):
        late = 1.0 if number == 2 else 0.0
        history(Event(10 + number / 10, Kind.publish, "producer", "p", number, 1))
        history(Event(10 + number / 10, Kind.confirm, "producer", "p", number, 1))
        if not (late and lost):
            history(Event(10 + number / 10 + late, Kind.delivery, "consumer", "p", number, 1))
            history(Event(10 + number / 10 + late, Kind.ack, "consumer", "p", number, 1))
    history(Event(10.05, Kind.action, journal.SUITE, detail="stop <rabbit>"))
    entry = Recording(history, QueueType.QUORUM, 10.0, kept=kept, gate=gate)
    entry.verdict = judge(history.events())
    return entry


def reported(tmp_path: Path, *recordings: Recording) -> Report:
    report = Report(datetime(2026, 1, 1, tzinfo=UTC), {"profile": "essential"})
    test = Case("smoke/test_failover.py::test_the_leader_is_killed[<pool>]", "passed", 3.0)
    test.keep(list(recordings), tmp_path / "histories")
    report.tests.append(test)
    return report


def test_a_test_is_named_as_a_sentence() -> None:
    assert Case("smoke/test_x.py::test_the_leader_is_killed").name == "the leader is killed"
    assert Case("smoke/test_x.py::test_a_network_is_gone[50 ms]").name == "a network is gone (50 ms)"


def test_the_history_of_a_stream_is_kept_beside_the_report_and_can_be_judged_again(tmp_path: Path) -> None:
    entry = recorded()
    stream = reported(tmp_path, entry).tests[0].streams[0]
    assert judge(History.load(tmp_path / stream.file).events()) == entry.verdict


def test_several_streams_of_a_test_are_kept_apart(tmp_path: Path) -> None:
    streams = reported(tmp_path, recorded(), recorded()).tests[0].streams
    assert len({stream.file for stream in streams}) == 2


def test_a_stream_that_its_test_did_not_judge_is_judged_as_a_whole(tmp_path: Path) -> None:
    entry = recorded(lost=True)
    entry.verdict = None
    stream = reported(tmp_path, entry).tests[0].streams[0]
    assert not stream.judged
    assert not stream.verdict.ok


@pytest.mark.parametrize(("gate", "kept"), [(None, None), (2.0, True), (0.5, False)])
def test_a_gate_is_held_against_the_longest_silence(tmp_path: Path, gate: float | None, kept: bool | None) -> None:
    assert reported(tmp_path, recorded(gate=gate)).tests[0].streams[0].within is kept


def test_a_verdict_that_is_kept_finds_its_stream() -> None:
    entry, other = recorded(kept=False), recorded(kept=False)
    assert entry.verdict is not None
    with journal.recording(entry), journal.recording(other):
        journal.keep(entry.verdict, 0.7)
    assert [(taken.kept, taken.gate) for taken in journal.take()] == [(True, 0.7), (False, None)]


def test_a_stream_of_broken_clients_is_no_fault_that_applications_feel(tmp_path: Path) -> None:
    assert reported(tmp_path, recorded(lost=True, kept=False)).faults == []


def test_a_stream_whose_test_failed_before_its_verdict_is_shown(tmp_path: Path) -> None:
    report = reported(tmp_path, recorded(kept=False))
    report.tests[0].outcome = "failed"
    assert len(report.faults) == 1


@pytest.mark.parametrize("outcome", ["failed", "interrupted"])
def test_what_a_stream_that_was_not_judged_had_no_time_to_deliver_is_not_said_to_be_lost(
    outcome: str, tmp_path: Path
) -> None:
    entry = recorded(lost=True, kept=False)
    entry.verdict = None
    report = reported(tmp_path, entry)
    report.tests[0].outcome = outcome
    assert report.sentence() == f"1 {outcome}, 0 passed."
    assert "messages lost" not in page.overview(report)
    line = table(report)[1].split()
    assert line[-1] == outcome
    assert "-" in line


def test_recordings_are_taken_once() -> None:
    with journal.recording(recorded()):
        pass
    assert len(journal.take()) == 1
    assert journal.take() == []


def test_what_the_suite_does_is_in_the_history_of_the_stream_that_flows() -> None:
    entry = Recording(History(), QueueType.QUORUM, 10.0)
    with journal.recording(entry), journal.doing("stop rabbit"):
        assert journal.under_way() is not None
    assert journal.under_way() is None
    assert [(event.kind, event.detail) for event in entry.history.events()] == [
        (Kind.action, "stop rabbit"),
        (Kind.done, "stop rabbit"),
    ]


def test_a_fault_begins_and_ends_in_the_history_of_the_stream() -> None:
    entry = Recording(History(), QueueType.QUORUM, 10.0)
    with journal.recording(entry), journal.fault("rabbit is cut off"):
        pass
    assert [event.kind for event in entry.history.events()] == [Kind.fault, Kind.healed]


def test_an_action_that_fails_has_ended_all_the_same() -> None:
    with pytest.raises(OSError, match="gone"), journal.doing("stop rabbit"):
        raise OSError("gone")
    assert journal.under_way() is None


def test_the_figures_are_json_with_times_from_the_beginning(tmp_path: Path) -> None:
    reported(tmp_path, recorded(gate=2.0)).write(tmp_path / "report.json")
    figures = json.loads((tmp_path / "report.json").read_text())
    stream = figures["tests"][0]["streams"][0]
    assert stream["within_gate"] is True
    assert stream["figures"]["confirmed"] == 3
    assert stream["events"] == [{"at": 0.05, "kind": "action", "who": "suite", "where": "", "detail": "stop <rabbit>"}]


def test_a_run_is_summed_up_in_a_sentence(tmp_path: Path) -> None:
    assert reported(tmp_path, recorded()).sentence() == "1 passed; of 3 confirmed messages none was lost."


def test_lost_messages_are_summed_up(tmp_path: Path) -> None:
    assert "of 6 confirmed messages 2 were lost" in reported(tmp_path, *[recorded(lost=True)] * 2).sentence()


def test_a_lost_message_is_seen_on_the_page(tmp_path: Path) -> None:
    assert "messages lost" in page.overview(reported(tmp_path, recorded(lost=True)))


def test_a_silence_beyond_the_gate_is_seen_on_the_page(tmp_path: Path) -> None:
    assert "too long" in page.overview(reported(tmp_path, recorded(gate=0.5)))


def test_a_kept_promise_is_seen_on_the_page(tmp_path: Path) -> None:
    part = page.overview(reported(tmp_path, recorded(gate=2.0)))
    assert "2.00 s" in part
    assert "ok" in part
    assert "bad" not in part


def test_a_remark_is_seen_on_the_page_and_in_the_figures(tmp_path: Path) -> None:
    report = reported(tmp_path, recorded())
    assert "†" not in page.overview(report)
    report.tests[0].remarks.append("it <had> help")
    part = page.overview(report)
    assert part.count("†") == 2
    assert "it &lt;had&gt; help" in part
    assert report.as_json()["tests"][0]["remarks"] == ["it <had> help"]


def test_remarks_are_taken_once() -> None:
    journal.remark("it had help")
    assert journal.take_remarks() == ["it had help"]
    assert journal.take_remarks() == []


def test_the_table_has_a_line_for_each_fault_and_the_remarks_below(tmp_path: Path) -> None:
    report = reported(tmp_path, recorded(), recorded(lost=True), recorded(gate=0.5))
    report.tests[0].remarks.append("it had help")
    _, good, bad, late, remark = table(report)
    assert good.startswith("the leader is killed (<pool>) †      1.10 s")
    assert good.endswith("  ok")
    assert bad.endswith("  messages lost")
    assert late.endswith("  too long")
    assert remark == "† the leader is killed (<pool>): it had help"


def test_there_is_no_table_where_clients_felt_nothing(tmp_path: Path) -> None:
    assert table(reported(tmp_path)) == []


def test_a_failed_test_without_a_stream_is_on_the_page_with_its_reason() -> None:
    report = Report(datetime(2026, 1, 1, tzinfo=UTC), {})
    report.tests.append(Case("smoke/test_x.py::test_it_works", "failed", 1.0, "it <does> not"))
    assert "it &lt;does&gt; not" in page.overview(report)


def test_what_comes_from_outside_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    part = page.faults(reported(tmp_path, recorded()))
    assert "&lt;rabbit&gt;" in part
    assert "<rabbit>" not in part
    assert "<pool>" not in part


def test_versions_and_settings_are_on_the_page() -> None:
    report = Report(datetime(2026, 1, 1, tzinfo=UTC), {}, versions={"rabbit": {"RabbitMQ": "4.0.5"}})
    assert "4.0.5" in page.surroundings(report)


def test_hosts_that_are_alike_share_a_heading() -> None:
    same = {"RabbitMQ": "4.0.5"}
    assert together({"a": same, "b": {"RabbitMQ": "4.3.6"}, "c": same}) == {"a, c": same, "b": {"RabbitMQ": "4.3.6"}}


def test_the_facts_of_each_host_are_read_from_what_ansible_prints() -> None:
    printed = "a | CHANGED | rc=0 >>\nsystem=Debian 13\nhaproxy=\n\nb | CHANGED | rc=0 >>\nsystem=Debian 12\n"
    assert parse_facts(printed) == {"a": {"system": "Debian 13", "haproxy": ""}, "b": {"system": "Debian 12"}}


def test_only_what_a_balancer_says_anew_is_an_event() -> None:
    events = changes({"a": "UP", "b": "UP"}, {"a": "UP", "b": "DOWN"}, "balancer", 5.0)
    assert events == [Event(5.0, Kind.server, "balancer", where="b", detail="DOWN")]


def test_progress_says_what_is_done_and_how_messages_flow() -> None:
    entry = Recording(History(), QueueType.QUORUM, 10.0)
    with journal.recording(entry), journal.doing("stop rabbit"):
        began = entry.history.events()[0].at
        for kind in (Kind.publish, Kind.publish, Kind.delivery):
            entry.history(Event(began, kind, "a", "p"))
        said = status(began - 5, expected=20)
    assert said.startswith("  5 s")
    assert "about 15 s left" in said
    assert "stop rabbit (for 0 s)" in said
    assert "2 published/s, 1 delivered/s" in said


def test_progress_does_not_say_how_long_a_test_takes_that_takes_longer_than_expected() -> None:
    assert "left" not in status(0.0, expected=0.001)
