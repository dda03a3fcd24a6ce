import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN, CompareWithGolden
from tests.rendering import ROOT, inventory_variables, read_yaml, render, role_variables, setting_lines

SERVERS = [{"name": f"broker{n}", "address": f"10.0.0.1{n}", "port": 5672, "management_port": 15672} for n in (1, 2, 3)]
POOL: dict[str, Any] = {
    "haproxy_servers": SERVERS,
    "haproxy_broker_version": "4.3.6",
    "haproxy_section": "rabbitmq_cluster",
    "haproxy_socket": "/run/haproxy/admin.sock",
}

# The listing of chapter 6 of "RabbitMQ in Action": check inter 5000 rise 2 fall 3, and nothing faster in between.
BOOK = {
    "haproxy_check": "tcp",
    "haproxy_check_inter": 5000,
    "haproxy_check_fastinter": 5000,
    "haproxy_check_downinter": 5000,
    "haproxy_check_rise": 2,
    "haproxy_check_fall": 3,
}
GOLDEN_CASES: dict[str, dict[str, Any]] = {
    "http": {"haproxy_check": "http"},
    "tcp-book": BOOK,
    "leastconn-backup": {"haproxy_balance": "leastconn", "haproxy_backup_servers": ["broker3"]},
}

WITH_AGENTS = [server | {"agent_port": 15690} for server in SERVERS]
# Where the check speaks AMQP (3.10.8, 4.0.5), and where there is a better one.
GOLDEN_CASES |= {
    f"{profile}-{check}": {
        "haproxy_profile": profile,
        "haproxy_servers": WITH_AGENTS,
        "haproxy_broker_version": version,
    }
    for profile in ("default", "lan")
    for check, version in (("amqp", "3.10.8"), ("http", "4.3.6"))
}

CHECKS = ("http", "amqp", "tcp")
BALANCES = ("roundrobin", "leastconn")
SWITCHES: dict[str, tuple[Any, Any]] = {
    "haproxy_backup_servers": ([], ["broker2", "broker3"]),
    "haproxy_slowstart": (0, 30000),
    "haproxy_server_maxconn": (0, 500),
    "haproxy_shutdown_sessions": (True, False),
    "haproxy_user_timeout": (0, 5000),
    "haproxy_servers": (SERVERS, WITH_AGENTS),
}


def configuration(**options: Any) -> str:
    return render("haproxy.cfg", "haproxy", POOL | options)


def option_space() -> Iterator[dict[str, Any]]:
    for values in product(*SWITCHES.values()):
        options = dict(zip(SWITCHES, values, strict=True))
        # Stands in the section global, where no other option does: half of the cases for each value are enough.
        yield options | {"haproxy_drop_privileges": options["haproxy_slowstart"] == options["haproxy_server_maxconn"]}


def server_lines(text: str) -> list[str]:
    return [line for line in setting_lines(text) if line.startswith("server ")]


def description(text: str) -> str:
    match = re.search(r"^    description ([0-9a-f]{64})$", text, re.MULTILINE)
    assert match, f"no line 'description HASH' in\n{text}"
    return match[1]


def local_configuration(**options: Any) -> str:
    variables = inventory_variables("balancer", facts={"rabbitmq_deployed_version": "3.10.8"})
    return render("haproxy.cfg", "haproxy", variables | options)


@pytest.fixture(scope="session")
def haproxy() -> str:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found is None:
        pytest.fail("haproxy is not installed, so that no configuration can be checked; `make check` installs it")
    return found


@pytest.fixture
def state_file(tmp_path: Path) -> str:
    """What the service makes of it before each start; without the file HAProxy gives a warning."""
    path = tmp_path / "server-state"
    path.write_text("1\n")
    return str(path)


def complaint(haproxy: str, path: Path) -> str:
    """What HAProxy has against a configuration; -dW makes a warning an error."""
    checked = subprocess.run(
        [haproxy, "-c", "-dW", "-f", str(path)], check=False, capture_output=True, text=True, timeout=30
    )
    return "" if checked.returncode == 0 else f"{checked.stdout}{checked.stderr}\nof {path}:\n{path.read_text()}"


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("check", CHECKS)
def test_haproxy_accepts_every_combination_of_options_without_a_warning(
    check: str, balance: str, haproxy: str, state_file: str, tmp_path: Path
) -> None:
    common = {"haproxy_check": check, "haproxy_balance": balance, "haproxy_state_file": state_file}
    files = []
    for number, options in enumerate(option_space()):
        files.append(tmp_path / f"{number}.cfg")
        files[-1].write_text(configuration(**common, **options))
    with ThreadPoolExecutor(2) as threads:
        complaints = [text for text in threads.map(lambda path: complaint(haproxy, path), files) if text]
    assert not complaints, f"haproxy -c refuses {len(complaints)} of {len(files)}; the first:\n{complaints[0]}"


def test_haproxy_accepts_the_local_deployment_without_a_warning(haproxy: str, state_file: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(local_configuration(haproxy_state_file=state_file))
    assert not complaint(haproxy, path)


def test_a_configuration_that_only_gives_a_warning_is_a_complaint(haproxy: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text("listen without_timeouts\n    mode tcp\n    bind 127.0.0.1:5670\n    server one 127.0.0.1:5672\n")
    assert "missing timeouts" in complaint(haproxy, path)


@pytest.mark.parametrize(
    ("version", "check"),
    [
        ("", "amqp"),
        ("3.10.8", "amqp"),
        ("4.0.5", "amqp"),
        ("4.1.0", "amqp"),
        ("4.1.1", "http"),
        ("4.2.9", "http"),
        ("4.3.6", "http"),
    ],
)
def test_auto_is_the_best_check_that_the_brokers_have(version: str, check: str) -> None:
    chosen = configuration(haproxy_check="auto", haproxy_broker_version=version)
    assert chosen == configuration(haproxy_check=check, haproxy_broker_version=version)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_a_named_case_is_its_golden_file(name: str, golden: CompareWithGolden) -> None:
    golden(f"haproxy/{name}.cfg", configuration(**GOLDEN_CASES[name]))


def test_the_local_deployment_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("haproxy/local.cfg", local_configuration())


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in (GOLDEN / "haproxy").iterdir()} == {*GOLDEN_CASES, "local"}


def test_the_times_of_the_book_are_calculated_in_the_comments() -> None:
    text = configuration(**BOOK)
    # Two more checks 5 s apart, after a first one that comes within 5 s; back after 5 s and one more check.
    assert "# A server that stops is DOWN after 10.0 to 15.0 s " in text
    assert "# One that returns is UP after at most 10.0 s " in text


def test_the_times_of_a_quick_check_are_calculated_in_the_comments() -> None:
    text = configuration(
        haproxy_check="http",
        haproxy_check_inter=1000,
        haproxy_check_fastinter=250,
        haproxy_check_downinter=1500,
        haproxy_check_rise=3,
        haproxy_check_fall=2,
        haproxy_check_timeout=800,
    )
    assert "# A server that stops is DOWN after 0.25 to 1.25 s " in text
    # 1 s to the first check, which waits 0.8 s; 0.25 s to the second, which waits 0.8 s.
    assert "# One that hangs is DOWN after at most 2.85 s " in text
    # 1.5 s to the first good check, two more 0.25 s apart.
    assert "# One that returns is UP after at most 2.0 s " in text


def test_a_check_that_never_speaks_promises_nothing_about_a_server_that_hangs() -> None:
    assert "One that hangs" not in configuration(haproxy_check="tcp")


@pytest.mark.parametrize("check", CHECKS)
def test_every_server_line_carries_the_times_of_its_check(check: str) -> None:
    text = configuration(
        haproxy_check=check,
        haproxy_check_inter=1234,
        haproxy_check_rise=4,
        haproxy_check_fall=7,
        haproxy_backup_servers=["broker2"],
    )
    port = " port 15672" if check == "http" else ""
    assert server_lines(text) == [
        f"server broker1 10.0.0.11:5672 check{port} inter 1234ms rise 4 fall 7",
        f"server broker2 10.0.0.12:5672 check{port} inter 1234ms rise 4 fall 7 backup",
        f"server broker3 10.0.0.13:5672 check{port} inter 1234ms rise 4 fall 7",
    ]


@pytest.mark.parametrize("check", CHECKS)
def test_no_secret_of_the_inventory_reaches_the_balancer(check: str) -> None:
    secrets = {"rabbitmq_erlang_cookie": "zz-cookie-zz", "smoke_user": "zz-user-zz", "smoke_password": "zz-password-zz"}
    text = configuration(haproxy_check=check, **secrets)
    assert not re.search("zz-|password|cookie|authorization", text, re.IGNORECASE)


# Another value for every option of the role. Those of the second table change nothing in the file. haproxy_servers is
# in neither: it changes the file, but no process has to be reloaded for it.
OTHER_VALUES: dict[str, Any] = {
    "haproxy_broker_version": "4.0.5",
    "haproxy_section": "other",
    "haproxy_balance": "leastconn",
    "haproxy_backup_servers": ["broker1"],
    "haproxy_slowstart": 1,
    "haproxy_server_maxconn": 1,
    "haproxy_listen_address": "10.0.0.1",
    "haproxy_port": 5673,
    "haproxy_maxconn": 1,
    "haproxy_stats_address": "10.0.0.1",
    "haproxy_stats_port": 8101,
    "haproxy_profile": "lan",
    "haproxy_check": "tcp",
    "haproxy_check_inter": 1,
    "haproxy_check_fastinter": 1,
    "haproxy_check_downinter": 1,
    "haproxy_check_rise": 1,
    "haproxy_check_fall": 1,
    "haproxy_check_timeout": 1,
    "haproxy_shutdown_sessions": False,
    "haproxy_user_timeout": 1,
    "haproxy_connect_timeout": 1,
    "haproxy_idle_timeout": 1,
    "haproxy_hard_stop_after": 1,
    "haproxy_socket": "/other.sock",
    "haproxy_state_file": "/other/server-state",
    "haproxy_log": "/other local0",
    "haproxy_drop_privileges": False,
}
NOT_IN_THE_FILE: dict[str, Any] = {
    "haproxy_address": "10.0.0.1",
    "haproxy_service": "other",
    "haproxy_config_dir": "/other",
}


@pytest.mark.parametrize("option", OTHER_VALUES)
def test_another_value_changes_the_hash_in_the_description(option: str) -> None:
    assert description(configuration(**{option: OTHER_VALUES[option]})) != description(configuration()), (
        f"{option} changes nothing that the running process tells (show info), so HAProxy would not be reloaded"
    )


@pytest.mark.parametrize("option", NOT_IN_THE_FILE)
def test_an_option_that_is_not_in_the_file_leaves_the_hash_alone(option: str) -> None:
    assert configuration(**{option: NOT_IN_THE_FILE[option]}) == configuration(), f"{option} would cause a reload"


def test_a_further_server_gets_its_line_and_leaves_the_hash_alone() -> None:
    fourth = {"name": "broker4", "address": "10.0.0.14", "port": 5672, "management_port": 15672}
    with_fourth = configuration(haproxy_servers=[*SERVERS, fourth])
    assert description(with_fourth) == description(configuration())
    assert server_lines(with_fourth)[:3] == server_lines(configuration())
    assert server_lines(with_fourth)[3].startswith("server broker4 10.0.0.14:5672 check port 15672 ")


def test_a_server_less_leaves_the_hash_alone() -> None:
    assert description(configuration(haproxy_servers=SERVERS[:2])) == description(configuration())


def test_the_hash_is_nowhere_but_in_the_description() -> None:
    text = configuration()
    assert text.count(description(text)) == 1


def test_every_option_is_known_to_change_the_file_or_not() -> None:
    options = read_yaml(ROOT / "roles/haproxy/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(OTHER_VALUES) ^ set(NOT_IN_THE_FILE) ^ {"haproxy_servers"} == set(options)


def test_another_value_is_really_another_one() -> None:
    defaults = role_variables("haproxy", POOL)
    assert not [option for option, value in (OTHER_VALUES | NOT_IN_THE_FILE).items() if defaults[option] == value]


def test_rendering_twice_gives_the_same_text() -> None:
    assert configuration() == configuration()


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("haproxy_check_inter", "5000", 5000),
        ("haproxy_check_fall", "5", 5),
        ("haproxy_slowstart", "0", 0),
        ("haproxy_user_timeout", "0", 0),
        ("haproxy_server_maxconn", "0", 0),
        ("haproxy_shutdown_sessions", "false", False),
        ("haproxy_drop_privileges", "false", False),
    ],
)
def test_a_value_given_as_text_on_the_command_line_means_the_same(option: str, text: str, value: Any) -> None:
    # --extra-vars haproxy_check_fall=5 passes the specification, which converts a copy.
    assert configuration(**{option: text}) == configuration(**{option: value})


def options_of(text: str) -> dict[str, str]:
    """The options of every server line by name."""
    return {line.split()[1]: line.split(maxsplit=3)[3] for line in server_lines(text)}


@pytest.mark.parametrize("version", ["3.10.8", "4.0.5", "4.3.6"])
def test_every_node_with_an_agent_is_there_once_more_as_a_last_resort_that_no_agent_can_take_out(version: str) -> None:
    lines = options_of(configuration(haproxy_servers=WITH_AGENTS, haproxy_broker_version=version))
    assert list(lines) == [f"broker{n}{suffix}" for suffix in ("", ":last-resort") for n in (1, 2, 3)]
    assert [(" backup" in options, "agent" in options) for options in lines.values()] == [(False, True)] * 3 + [
        (True, False)
    ] * 3


def test_the_clients_of_last_resorts_leave_them_for_the_first_server_that_is_back() -> None:
    lines = options_of(configuration(haproxy_servers=WITH_AGENTS))
    assert {name for name, options in lines.items() if "on-marked-up shutdown-backup-sessions" in options} == {
        "broker1",
        "broker2",
        "broker3",
    }


def test_the_clients_of_a_server_that_stands_by_may_stay_on_it() -> None:
    text = configuration(haproxy_servers=WITH_AGENTS, haproxy_backup_servers=["broker3"])
    assert "on-marked-up" not in text
    # HAProxy takes the first backup server that is UP: the last resorts come after the one that was chosen.
    backups = [name for name, options in options_of(text).items() if " backup" in options]
    assert backups == ["broker3", "broker1:last-resort", "broker2:last-resort", "broker3:last-resort"]


def test_a_server_without_an_agent_is_there_once() -> None:
    lines = options_of(configuration(haproxy_servers=[*WITH_AGENTS[:2], SERVERS[2] | {"agent_port": 0}]))
    assert "broker3:last-resort" not in lines
    assert "agent" not in lines["broker3"]


def test_agents_on_servers_that_are_there_already_need_a_reload() -> None:
    assert description(configuration(haproxy_servers=WITH_AGENTS)) != description(configuration())


def test_a_given_value_wins_over_the_profile() -> None:
    text = configuration(haproxy_profile="lan", haproxy_check_fall=5)
    assert " inter 1000ms rise 2 fall 5" in text


def test_the_times_of_the_profile_lan_are_calculated_in_the_comments() -> None:
    text = configuration(haproxy_profile="lan", haproxy_broker_version="4.3.6")
    assert "# A server that stops is DOWN after 0.25 to 1.25 s " in text
    assert "# One that hangs is DOWN after at most 3.25 s " in text
