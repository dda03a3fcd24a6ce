"""tests/events/site.jsonl is a short run of playbooks/site.yml, as the callback ansible.posix.jsonl tells it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import options
from bench.erlang import is_tool
from bench.report import Machine, Measured, Scenario, document
from bench.sections import Part, replaced
from bench.timing import EventError, Phase, Timing, events, failures, phase_of, timing
from tests.rendering import ROOT, read_yaml

LINES = (Path(__file__).parent / "events" / "site.jsonl").read_text().splitlines()
STARTED, ENDED = (datetime(2026, 11, 24, 12, *at, tzinfo=UTC).timestamp() for at in ((0, 0), (1, 30)))


def run() -> Timing:
    return timing(events(LINES), STARTED, ENDED)


def play(name: str, second: int, path: str = "/somewhere/playbooks/rabbitmq.yml:38") -> dict[str, Any]:
    timestamp = f"2026-11-24T12:00:{second:02}.000000Z"
    return {"_event": "v2_playbook_on_play_start", "_timestamp": timestamp, "play": {"name": name, "path": path}}


def document_of(*totals: float) -> str:
    measured = [
        Measured(scenario, Timing(dict.fromkeys(Phase, 0.0) | {Phase.roll: total}, 3, run().counts), tools=7)
        for total in totals
        for scenario in Scenario
    ]
    machine = Machine(model="Processor", cores=2, memory_gib=7.8, kernel="Linux 6.1")
    return document(measured, machine, {"RabbitMQ": "4.0.5"}, len(totals), datetime.fromtimestamp(STARTED, UTC))


def test_the_phases_are_the_time_between_plays_and_together_the_whole_run() -> None:
    phases = {phase: round(seconds, 1) for phase, seconds in run().phases.items() if seconds}
    assert phases == {"start of Ansible": 1.0, "preflight": 9.0, "compare": 10.0, "roll": 50.0, "balance": 20.0}
    assert run().total == pytest.approx(ENDED - STARTED)


def test_a_node_in_its_turn_is_counted_and_a_play_without_nodes_is_none() -> None:
    assert run().nodes_rolled == 2
    nobody = [
        play("Bring the nodes that differ up to date, one at a time", 5),
        play("Spread queue leaders", 6, "rebalance.yml:3"),
    ]
    assert timing(nobody, STARTED, ENDED).nodes_rolled == 0


def test_a_play_for_all_nodes_is_no_node_in_its_turn() -> None:
    task = {"_event": "v2_playbook_on_task_start", "task": {"name": "Let them go by that of the inventory"}}
    together = [play("Let all nodes of a cluster go by the same net_ticktime", 5), task]
    assert timing(together, STARTED, ENDED).nodes_rolled == 0


def test_what_ran_on_a_host_is_counted_by_kind() -> None:
    counts = run().counts
    assert (counts.tasks, counts.executions, counts.changed) == (8, 8, 3)
    # An element of a loop counts, unless it was skipped; assert runs on the control machine.
    assert (counts.modules, counts.shells, counts.questions) == (3, 4, 1)


def test_every_play_of_site_yml_belongs_to_a_phase() -> None:
    def plays(file: Path) -> list[tuple[str, str]]:
        return [
            play
            for entry in read_yaml(file)
            for play in (
                plays(file.parent / entry["ansible.builtin.import_playbook"])
                if "ansible.builtin.import_playbook" in entry
                else [(f"{file}:1", entry["name"])]
            )
        ]

    seen = [phase_of(*play) for play in plays(ROOT / "playbooks/site.yml")]
    assert set(seen) == set(Phase) - {Phase.start}
    assert seen == sorted(seen, key=list(Phase).index), "the phases come in the order of site.yml"


def test_a_play_of_no_phase_is_named() -> None:
    with pytest.raises(EventError, match='"Do more" of more'):
        timing([play("Do more", 5, "/somewhere/more.yml:1")], STARTED, ENDED)


def test_a_run_without_a_play_is_refused() -> None:
    with pytest.raises(EventError, match="no play"):
        timing([], STARTED, ENDED)


def test_a_failure_is_told_in_one_line() -> None:
    failed = {"msg": "Port 5672\nis taken", "action": "assert"}
    event = {"_event": "v2_runner_on_failed", "task": {"name": "Refuse it"}, "hosts": {"rabbit1": failed}}
    assert failures([event]) == ["rabbit1: Refuse it: Port 5672 is taken"]


def test_warnings_between_the_events_are_left_out() -> None:
    assert events(["[WARNING]: no such group", json.dumps({"_event": "x"}), ""]) == [{"_event": "x"}]


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        (b"/usr/lib/erlang/bin/beam.smp\0--\0-noinput\0-s\0rabbit\0boot\0", False),
        (b"/usr/lib/erlang/bin/beam.smp\0--\0-escript\0main\0rabbitmqctl_escript\0-run\0escript\0start\0", True),
    ],
    ids=["node", "tool"],
)
def test_a_command_line_tool_is_told_from_a_node(command: bytes, tool: bool) -> None:
    assert is_tool(command) is tool


def test_the_document_has_medians_with_their_spread() -> None:
    text = document_of(30.0, 10.04, 20.0)
    assert "| **everything** | 20.0 (10.0 to 30.0) | 20.0 (10.0 to 30.0) | 20.0 (10.0 to 30.0) |" in text
    assert "| Erlang machines started for a command line tool | 7 | 7 | 7 |" in text
    assert "| 2 | 8 GiB | Processor | Linux 6.1 |" in text
    assert "on 2026-11-24" in text


def test_a_part_is_replaced_and_the_others_stay() -> None:
    text = replaced("", Part.throughput, "## Throughput\n\nfast")
    text = replaced(text, Part.provisioning, "# Benchmarks\n\nquick\n")
    text = replaced(text, Part.failover, "## Failover\n\nbefore\n")
    text = replaced(text, Part.failover, "## Failover\n\nsafe\n")
    assert text.splitlines() == [
        *("# Benchmarks", "", "quick", ""),
        *("<!-- failover -->", "## Failover", "", "safe", ""),
        *("<!-- throughput -->", "## Throughput", "", "fast"),
    ]


def test_a_document_without_marks_is_about_provisioning() -> None:
    before = document_of(1.0)
    after = replaced(before, Part.failover, "## Failover")
    assert after.startswith(before.strip())
    assert replaced(after, Part.failover, "## Failover") == after


def test_a_document_of_one_later_part_has_a_title() -> None:
    assert replaced("", Part.failover, "## Failover") == "# Benchmarks\n\n<!-- failover -->\n## Failover\n"


def test_without_options_every_part_is_measured_five_times() -> None:
    given = options([])
    assert (given.part, given.runs, given.only, given.output.name) == ("all", 5, None, "benchmarks.md")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["speed"], "argument PART: invalid choice: 'speed' (choose from 'provisioning', 'failover'"),
        (["--runs", "0"], "argument --runs: '0' is not a number from 1 to 100"),
        (["--only", "nobody"], "argument --only: invalid choice: 'nobody' (choose from 'lan', 'lan-4.3', 'default'"),
        (["throughput", "--only", "lan"], "argument --only: the part throughput has no settings to choose from"),
        (["--more"], "argument --more: only the part failover keeps the figures of earlier runs"),
        (["--output", "/nowhere/at/all.md"], "argument --output: '/nowhere/at/all.md' is not a file in a directory"),
        (["--output", "figures"], "argument --output: 'figures' has no ending, such as .md"),
    ],
    ids=["part", "runs", "settings", "settings of another part", "more of another part", "output", "no ending"],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        options(arguments)
    said = capsys.readouterr().err
    assert exit_code.value.code == 2
    assert said.startswith(f"bench: {complaint}")
    assert said.count("\n") == 1
