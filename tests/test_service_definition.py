"""What the service manager is told of a service: a program of supervisord, or a drop-in beside the package's unit."""

import re
from typing import Any

import pytest

from tests.conftest import GOLDEN, CompareWithGolden
from tests.rendering import ROOT, evaluate, inventory_variables, read_trusted, read_yaml, render, role_variables

DEPLOYED = {"rabbitmq_deployed_version": "4.0.5"}
LAB = ROOT / "inventory/lab"
# Service, its role, and a host of an inventory that has it.
SERVICES = {
    "rabbitmq-server": ("rabbitmq", "rabbit1"),
    "haproxy": ("haproxy", "lb1"),
    "keepalived": ("keepalived", "lb1"),
}


def given(role: str) -> dict[str, Any]:
    """The variables with which a task of a role calls the role service."""
    (found,) = [
        task["vars"]
        for task in read_trusted(ROOT / f"roles/{role}/tasks/service.yml")
        if "service_command" in task.get("vars", {})
    ]
    return dict(found)


def definition(template: str, role: str, variables: dict[str, Any]) -> str:
    return render(template, "service", role_variables(role, variables) | given(role))


def local(host: str) -> dict[str, Any]:
    return inventory_variables(host, facts={"rabbitmq_deployed_version": "3.10.8"})


def test_the_node_as_a_program_of_supervisord_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("local/program-rabbit.conf", definition("program.conf", "rabbitmq", local("rabbit")))


def test_the_balancer_as_a_program_of_supervisord_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("local/program-balancer.conf", definition("program.conf", "haproxy", local("balancer")))


@pytest.mark.parametrize("service", SERVICES)
def test_a_drop_in_of_systemd_is_its_golden_file(service: str, golden: CompareWithGolden) -> None:
    role, host = SERVICES[service]
    variables = inventory_variables(host, facts=DEPLOYED, inventory=LAB)
    golden(f"systemd/{service}.conf", definition("service-override.conf", role, variables))


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in (GOLDEN / "systemd").iterdir()} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_no_command_has_a_character_that_means_something_to_the_service_manager(service: str) -> None:
    role, host = SERVICES[service]
    variables = role_variables(role, inventory_variables(host, facts=DEPLOYED, inventory=LAB)) | given(role)
    # systemd replaces $ and %, supervisord %; the commands stand between quotes.
    before_start = evaluate("service_before_start", "service", variables)
    assert not re.search(r"""['"$%\\]""", before_start)
    for command in evaluate("service_reload", "service", variables):
        assert not re.search(r"['$%\\]", command), command


SERVICE: dict[str, Any] = {
    "service_name": "broker",
    "service_command": "/usr/sbin/broker",
    "service_user": "broker",
    "service_log_dir": "/var/log/broker",
}
OTHER_VALUES: dict[str, Any] = {
    "service_name": "other",
    "service_command": "/usr/sbin/other",
    "service_user": "other",
    "service_log_dir": "/other",
    "service_environment": {"OTHER": "1"},
    "service_file_limit": 1,
    "service_restart_delay": 1.0,
    "service_restart_steadily": True,
    "service_start_timeout": 1,
    "service_stop_timeout": 1,
    "service_before_start": "true",
    "service_reload": ["true"],
}
# The rest stands in the package's unit, or is not for supervisord.
NOT_IN_THE_FILE = {
    "program.conf": {
        "service_file_limit",
        "service_restart_delay",
        "service_restart_steadily",
        "service_start_timeout",
        "service_reload",
    },
    "service-override.conf": {"service_name", "service_command", "service_user", "service_log_dir"},
}
CASES = [(template, option) for template in NOT_IN_THE_FILE for option in OTHER_VALUES]


def mark(template: str, **options: Any) -> str:
    text = render(template, "service", SERVICE | options)
    # As roles/service/tasks/inspected.yml looks for it.
    (found,) = re.findall(r'RABBITPROOF_DEFINITION="?([0-9a-f]{64})', text)
    return str(found)


@pytest.mark.parametrize(("template", "option"), CASES)
def test_the_process_tells_every_option_that_it_was_started_with(template: str, option: str) -> None:
    differs = mark(template, **{option: OTHER_VALUES[option]}) != mark(template)
    assert differs == (option not in NOT_IN_THE_FILE[template])


@pytest.mark.parametrize(("template", "option"), CASES)
def test_what_changes_the_mark_is_what_changes_the_file(template: str, option: str) -> None:
    def rest(**options: Any) -> str:
        return re.sub("[0-9a-f]{64}", "", render(template, "service", SERVICE | options))

    differs = rest(**{option: OTHER_VALUES[option]}) != rest()
    assert differs == (option not in NOT_IN_THE_FILE[template])


def test_another_value_in_the_environment_changes_the_mark() -> None:
    for template in NOT_IN_THE_FILE:
        assert mark(template, service_environment={"A": "1"}) != mark(template, service_environment={"A": "2"})


def test_every_option_is_known_to_change_a_file_or_not() -> None:
    options = read_yaml(ROOT / "roles/service/meta/argument_specs.yml")["argument_specs"]["define"]["options"]
    assert set(OTHER_VALUES) == set(options)
