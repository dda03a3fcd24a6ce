import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN, CompareWithGolden
from tests.rendering import ROOT, evaluate, inventory_variables, read_trusted, render, role_variables, setting_lines

NODES = ["rabbit@broker1", "rabbit@broker2", "rabbit@broker3"]
NODE: dict[str, Any] = {
    "rabbitmq_nodename": NODES[0],
    "rabbitmq_cluster_nodes": NODES,
    "rabbitmq_address": "10.0.0.11",
    "rabbitmq_amqp_port": 5672,
    "rabbitmq_management_port": 15672,
}
GOLDEN_VERSIONS = ("3.10.8", "3.13.7", "4.0.5", "4.1.8", "4.2.9", "4.3.6")
LAN_VERSIONS = ("3.10.8", "4.0.5", "4.3.6")
LAN_FILES = ("advanced.config", "rabbitmq-env.conf")
IN_THE_ROLE = {"role_path": str(ROOT / "roles/rabbitmq")}
# One of every series, and both sides of the releases within a series that brought something.
VERSIONS = (
    "3.10.8",
    "3.11.28",
    "3.12.14",
    "3.13.7",
    "4.0.5",
    "4.1.0",
    "4.1.1",
    "4.1.2",
    "4.1.8",
    "4.2.9",
    "4.3.0",
    "4.3.6",
)

# Which of them know a key or an endpoint; written down from the release notes, not from roles/rabbitmq/vars.
BEFORE_KHEPRI_ALONE = {version for version in VERSIONS if not version.startswith("4.3.")}
FROM_3_12 = set(VERSIONS[2:])
FROM_3_13 = set(VERSIONS[3:])
FROM_4_0 = set(VERSIONS[4:])
FROM_4_1_1 = set(VERSIONS[6:])
FROM_4_1_2 = set(VERSIONS[7:])
FROM_4_3 = set(VERSIONS[10:])
KEYS_OF_SOME_VERSIONS = {
    "cluster_partition_handling": BEFORE_KHEPRI_ALONE,
    "default_queue_type": FROM_3_12,
    "cluster_formation.discovery_retry_limit": FROM_3_13,
    "cluster_formation.discovery_retry_interval": FROM_3_13,
    "anonymous_login_user": FROM_4_0,
    "prevent_startup_if_node_was_reset": FROM_4_1_2,
    "consumer_disconnected_timeout": FROM_4_3,
}

SCHEMAS = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/plugins/*/priv/schema/*.schema"))


def configuration(version: str, **options: Any) -> str:
    return render("rabbitmq.conf", "rabbitmq", NODE | {"rabbitmq_deployed_version": version} | options)


def settings(text: str) -> dict[str, str]:
    pairs = [line.partition(" = ") for line in setting_lines(text)]
    assert all(equals for _, equals, _ in pairs), f"a line is not KEY = VALUE in\n{text}"
    return {key: value for key, _, value in pairs}


def local(host: str) -> dict[str, Any]:
    return inventory_variables(host, facts={"rabbitmq_deployed_version": "3.10.8"})


@pytest.mark.parametrize("version", GOLDEN_VERSIONS)
def test_rabbitmq_conf_of_a_version_is_its_golden_file(version: str, golden: CompareWithGolden) -> None:
    golden(f"rabbitmq/{version}.conf", configuration(version))


@pytest.mark.parametrize("template", ["rabbitmq.conf", "advanced.config", "rabbitmq-env.conf", "enabled_plugins"])
def test_a_file_of_the_local_deployment_is_its_golden_file(template: str, golden: CompareWithGolden) -> None:
    golden(f"local/{template}", render(template, "rabbitmq", local("rabbit_1")))


@pytest.mark.parametrize("template", ["advanced.config", "rabbitmq-env.conf", "enabled_plugins"])
def test_a_file_of_a_production_node_is_its_golden_file(template: str, golden: CompareWithGolden) -> None:
    golden(f"rabbitmq/{template}", render(template, "rabbitmq", NODE))


@pytest.mark.parametrize("version", LAN_VERSIONS)
def test_rabbitmq_conf_of_the_profile_lan_is_its_golden_file(version: str, golden: CompareWithGolden) -> None:
    golden(f"rabbitmq/lan-{version}.conf", configuration(version, rabbitmq_profile="lan"))


@pytest.mark.parametrize("template", LAN_FILES)
def test_a_file_of_the_profile_lan_is_its_golden_file(template: str, golden: CompareWithGolden) -> None:
    golden(f"rabbitmq/lan-{template}", render(template, "rabbitmq", NODE | {"rabbitmq_profile": "lan"}))


def test_the_unit_of_the_agent_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("rabbitmq/rabbitproof-agent.service", render("rabbitproof-agent.service", "rabbitmq", NODE | IN_THE_ROLE))


def test_the_agent_counts_connections_on_every_port_that_a_node_of_the_cluster_has() -> None:
    hosts: list[dict[str, Any]] = [
        {"name": "a", "address": "10.0.0.11", "distribution_port": "25672"},
        {"name": "b", "address": "10.0.0.12"},
    ]
    hosts.append({"name": "c", "address": "10.0.0.13", "distribution_port": 4000})
    command = evaluate("__rabbitmq_agent_command", "rabbitmq", NODE | IN_THE_ROLE | {"rabbitmq_cluster_hosts": hosts})
    assert command.split()[2:] == ["0.0.0.0", "15690", "3", "4000", "25672"]  # noqa: S104


def test_another_program_or_other_arguments_are_another_agent() -> None:
    def mark(**options: Any) -> str:
        return str(evaluate("__rabbitmq_agent_mark", "rabbitmq", NODE | IN_THE_ROLE | options))

    assert mark() == mark()
    assert mark(rabbitmq_agent_port=15691) != mark()
    assert mark(role_path=str(ROOT / "roles/keepalived/../rabbitmq")) == mark()


@pytest.mark.parametrize("option", ["rabbitmq_peer_user_timeout", "rabbitmq_client_user_timeout"])
@pytest.mark.parametrize("value", [0, "0"], ids=["number", "text"])
def test_a_user_timeout_of_0_is_not_written(option: str, value: Any) -> None:
    given = NODE | {"rabbitmq_profile": "lan", "rabbitmq_peer_user_timeout": 0, "rabbitmq_client_user_timeout": 0}
    text = render("advanced.config", "rabbitmq", given | {option: value})
    text += render("rabbitmq-env.conf", "rabbitmq", given | {option: value})
    assert "raw" not in text


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ({}, 60_000),
        ({"rabbitmq_net_ticktime": 90}, 90_000),
        ({"rabbitmq_net_ticktime": "90", "rabbitmq_peer_user_timeout": 5000}, 5000),
        ({"rabbitmq_profile": "lan", "rabbitmq_net_ticktime": 15}, 2000),
    ],
    ids=["default", "another net_ticktime", "given", "lan"],
)
def test_a_peer_is_given_up_no_sooner_than_net_ticktime_unless_told(given: dict[str, Any], milliseconds: int) -> None:
    assert f"<<{milliseconds}:32/native>>" in render("rabbitmq-env.conf", "rabbitmq", NODE | given)


@pytest.mark.parametrize(("given", "written"), [(1, 256), (300, 256), (5000, 5120), (32512, 32512)], ids="{:d}".format)
def test_a_user_timeout_of_clients_is_one_that_the_management_api_can_show(given: int, written: int) -> None:
    text = render("advanced.config", "rabbitmq", NODE | {"rabbitmq_client_user_timeout": given})
    assert f"{{raw, {{6, 18, <<{written}:32/native>>}}}}" in text
    assert written.to_bytes(4, sys.byteorder).isascii()


def test_a_given_value_wins_over_the_profile() -> None:
    written = settings(configuration("4.3.6", rabbitmq_profile="lan", rabbitmq_heartbeat=20))
    assert (written["heartbeat"], written["consumer_disconnected_timeout"]) == ("20", "1000")


@pytest.mark.parametrize("role", ["rabbitmq", "haproxy"])
def test_every_profile_has_every_value_and_is_one_that_may_be_chosen(role: str) -> None:
    profiles = role_variables(role, NODE)[f"__{role}_profiles"]
    assert len({frozenset(values) for values in profiles.values()}) == 1
    options = read_trusted(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert options[f"{role}_profile"]["choices"] == list(profiles)
    assert read_trusted(ROOT / "playbooks/group_vars/all.yml")["deployment_profiles"] == list(profiles)


def test_the_configuration_of_supervisord_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("local/supervisord.conf", render("supervisord.conf", "service", local("this_machine")))


LOCAL_FILES = {
    "rabbitmq.conf",
    "advanced.config",
    "rabbitmq-env.conf",
    "enabled_plugins",
    "program-rabbit.conf",
    "program-balancer.conf",
    "supervisord.conf",
}


def test_every_golden_file_belongs_to_a_case() -> None:
    names = {f"{version}.conf" for version in GOLDEN_VERSIONS}
    names |= {"advanced.config", "rabbitmq-env.conf", "enabled_plugins", "rabbitproof-agent.service"}
    names |= {f"lan-{version}.conf" for version in LAN_VERSIONS} | {f"lan-{name}" for name in LAN_FILES}
    assert {path.name for path in (GOLDEN / "rabbitmq").iterdir()} == names
    assert {path.name for path in (GOLDEN / "local").iterdir()} == LOCAL_FILES


@pytest.mark.parametrize("key", KEYS_OF_SOME_VERSIONS)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_is_written_for_the_versions_that_should_have_it_and_no_other(key: str, version: str) -> None:
    written = key in settings(configuration(version))
    assert written == (version in KEYS_OF_SOME_VERSIONS[key]), (
        f"{key} is {'' if written else 'not '}in rabbitmq.conf of {version}; see __rabbitmq_feature_versions in "
        f"roles/rabbitmq/vars/main.yml"
    )


@pytest.mark.parametrize(
    ("feature", "versions"), [("readiness_endpoint", FROM_4_1_1), ("growing_restart_delay", FROM_4_3)]
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_feature_is_one_of_the_versions_that_have_it(feature: str, versions: set[str], version: str) -> None:
    features = evaluate("__rabbitmq_features", "rabbitmq", NODE | {"rabbitmq_deployed_version": version})
    assert (feature in features) == (version in versions)


def test_nothing_is_a_feature_of_a_version_that_is_not_known_yet() -> None:
    assert evaluate("__rabbitmq_features", "rabbitmq", NODE | {"rabbitmq_deployed_version": ""}) == []


def test_every_series_that_is_supported_is_tried_here() -> None:
    assert {version.rpartition(".")[0] for version in VERSIONS} == set(
        role_variables("rabbitmq", NODE)["__rabbitmq_series"]
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_no_key_is_written_twice(version: str) -> None:
    keys = [line.split(" = ")[0] for line in setting_lines(configuration(version))]
    assert len(keys) == len(set(keys)), sorted(key for key in keys if keys.count(key) > 1)


def test_the_members_are_numbered_in_the_order_of_the_inventory() -> None:
    written = settings(configuration("4.3.6"))
    assert [written[f"cluster_formation.classic_config.nodes.{number}"] for number in (1, 2, 3)] == NODES
    assert written["cluster_formation.target_cluster_size_hint"] == "3"


def test_further_settings_are_written_last_and_sorted_by_key() -> None:
    text = configuration("4.3.6", rabbitmq_settings={"consumer_timeout": 60000, "channel_max": 100})
    assert text.endswith("\n\n## rabbitmq_settings\nchannel_max = 100\nconsumer_timeout = 60000\n")


@pytest.mark.parametrize("template", ["rabbitmq.conf", "advanced.config", "rabbitmq-env.conf", "enabled_plugins"])
def test_no_file_that_is_compared_or_shown_holds_a_secret(template: str) -> None:
    secrets = {
        "rabbitmq_deployed_version": "4.3.6",
        "rabbitmq_erlang_cookie": "zz-cookie-zz",
        "rabbitmq_admin_password": "zz-admin-zz",
        "rabbitmq_app_password": "zz-app-zz",
        "rabbitmq_monitoring_password": "zz-monitoring-zz",
        "smoke_password": "zz-password-zz",
    }
    assert "zz-" not in render(template, "rabbitmq", NODE | secrets)


def test_epmd_listens_where_the_node_does() -> None:
    assert "ERL_EPMD_ADDRESS=127.0.0.1" in render(
        "rabbitmq-env.conf", "rabbitmq", NODE | {"rabbitmq_listen_address": "127.0.0.1"}
    )
    assert "ERL_EPMD_ADDRESS" not in render("rabbitmq-env.conf", "rabbitmq", NODE)


@pytest.mark.parametrize(("nodename", "long"), [("rabbit@broker1", False), ("rabbit@broker1.example.com", True)])
def test_a_host_part_with_a_dot_is_a_long_name(nodename: str, long: bool) -> None:
    text = render("rabbitmq-env.conf", "rabbitmq", NODE | {"rabbitmq_nodename": nodename})
    assert ("USE_LONGNAME=true" in setting_lines(text)) == long


@pytest.mark.parametrize("plugin", ["management", "prometheus"])
def test_a_plugin_that_is_not_enabled_has_no_keys(plugin: str) -> None:
    # The schema of a plugin that is off is unknown to the node, which then refuses to start.
    plugins = [name for name in ("rabbitmq_management", "rabbitmq_prometheus") if name != f"rabbitmq_{plugin}"]
    prefixes = {key.split(".")[0] for key in settings(configuration("4.3.6", rabbitmq_plugins=plugins))}
    assert {"management", "prometheus"} - prefixes == {plugin}


def test_the_log_levels_of_the_node_and_of_its_connections_are_two() -> None:
    written = settings(configuration("4.3.6", rabbitmq_log_level="debug", rabbitmq_connection_log_level="error"))
    assert (written["log.file.level"], written["log.connection.level"]) == ("debug", "error")


def test_the_hosts_file_has_the_short_name_of_a_long_one_as_well() -> None:
    hosts = [
        {"name": "broker1", "address": "10.0.0.11"},
        {"name": "broker2.example.com", "address": "10.0.0.12"},
    ]
    assert render("hosts", "rabbitmq", NODE | {"rabbitmq_cluster_hosts": hosts}) == (
        "10.0.0.11 broker1\n10.0.0.12 broker2.example.com broker2\n"
    )


HOSTS = [{"name": f"broker{n}", "address": f"10.0.0.1{n}"} for n in (1, 2, 3)]
BLOCK = """\
# BEGIN nodes of rabbitmq (Rabbitproof)
10.0.0.11 broker1
10.0.0.12 broker2
10.0.0.13 broker3
# END nodes of rabbitmq (Rabbitproof)
127.0.0.1 localhost
"""


@pytest.mark.parametrize(
    ("there", "due"),
    [
        (BLOCK, False),
        (BLOCK.replace("\n", "\r\n"), False),
        ("127.0.0.1 localhost\n", True),
        (BLOCK.replace("10.0.0.13 broker3\n", ""), True),
        (BLOCK.replace("# END", "10.0.0.14 broker4\n# END"), True),
        (BLOCK.replace("broker3", "broker30"), True),
    ],
    ids=["same", "crlf", "none", "less", "more", "longer"],
)
def test_the_hosts_file_is_written_when_it_has_other_nodes(there: str, due: bool) -> None:
    (task,) = read_trusted(ROOT / "roles/rabbitmq/tasks/names.yml")
    # As tasks/fingerprint.yml reads it.
    look = ["has data", *(f"hosts file: {line}" for line in there.splitlines())]
    variables = NODE | task["vars"] | {"rabbitmq_cluster_hosts": HOSTS, "__rabbitmq_look": look}
    for asked, expected in ((True, due), (False, False)):
        given = variables | {"rabbitmq_hosts_file": asked}
        assert all(evaluate(condition, "rabbitmq", given) for condition in task["when"]) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("rabbitmq_amqp_port", "5672"),
        ("rabbitmq_management_port", "15672"),
        ("rabbitmq_distribution_port", "25672"),
        ("rabbitmq_epmd_port", "4369"),
    ],
)
def test_a_port_that_is_to_be_another_one_is_told_with_the_one_in_the_files(variable: str, value: str) -> None:
    files = configuration("4.3.6", rabbitmq_listen_address="10.0.0.11") + render("rabbitmq-env.conf", "rabbitmq", NODE)
    look = {"__rabbitmq_look": files.splitlines()}
    assert evaluate("__rabbitmq_moves", "rabbitmq", NODE | look) == []
    moves = evaluate("__rabbitmq_moves", "rabbitmq", NODE | look | {variable: 777})
    assert moves == [{"there": f"{variable} {value}", "wanted": "777"}]


def mappings() -> list[str]:
    """The keys that the installed RabbitMQ knows. A part that begins with $ stands for any one part."""
    return [
        key for path in SCHEMAS for key in re.findall(r'^\s*\{mapping,\s*"([^"]+)"', path.read_text(), re.MULTILINE)
    ]


def knows(known: list[str], key: str) -> bool:
    parts = key.split(".")
    return any(
        len(pattern) == len(parts)
        and all(part[0] == "$" or part == is_ for part, is_ in zip(pattern, parts, strict=True))
        for pattern in (mapping.split(".") for mapping in known)
    )


def installed_version() -> str:
    return SCHEMAS[0].parts[5].removeprefix("rabbitmq_server-")


@pytest.mark.skipif(not SCHEMAS, reason="no RabbitMQ is installed, so that its schema cannot be asked")
def test_the_installed_version_knows_every_key_that_is_written_for_it() -> None:
    known = mappings()
    unknown = [key for key in settings(configuration(installed_version())) if not knows(known, key)]
    assert not unknown, f"RabbitMQ {installed_version()} would not start: its schema does not have {unknown}"


@pytest.mark.skipif(not SCHEMAS, reason="no RabbitMQ is installed, so that its schema cannot be asked")
def test_the_schema_of_the_installed_version_refuses_a_key_that_is_none() -> None:
    assert not knows(mappings(), "cluster_formation.classic_config.nodes")
    assert not knows(mappings(), "listeners.tcp.1.backlog")


def test_a_switch_among_further_settings_is_written_as_rabbitmq_spells_it() -> None:
    assert settings(configuration("4.3.6", rabbitmq_settings={"proxy_protocol": True}))["proxy_protocol"] == "true"


@pytest.mark.parametrize("role", ["rabbitmq", "haproxy"])
def test_ports_given_as_text_on_the_command_line_are_compared_as_numbers(role: str) -> None:
    names = ("amqp", "management", "prometheus", "distribution") if role == "rabbitmq" else ("", "stats")
    given = {f"{role}_{name}_port".replace("__", "_"): "7000" for name in names}
    given |= {"rabbitmq_agent_port": "7000"}
    assert {entry["port"] for entry in evaluate(f"__{role}_ports", role, NODE | given)} == {7000}
