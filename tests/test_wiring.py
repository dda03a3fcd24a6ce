"""What playbooks/group_vars makes of an inventory: who belongs together, and what each is told of the others."""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.rendering import ROOT, evaluate, inventory_variables, read_yaml, render
from tests.test_haproxy_cfg import complaint, haproxy, state_file
from tests.test_service_definition import given

__all__ = ["haproxy", "state_file"]

PAIR = ROOT / "molecule/pair/inventory"
WARREN = ROOT / "molecule/warren/inventory"
EXAMPLE = ROOT / "inventory/example"
DEPLOYED = {"rabbitmq_deployed_version": "4.0.5"}


@cache
def variables(inventory: Path, host: str) -> dict[str, Any]:
    return inventory_variables(host, facts=DEPLOYED, inventory=inventory)


def value(inventory: Path, host: str, expression: str) -> Any:
    role = "haproxy" if host.startswith("lb") else "rabbitmq"
    return evaluate(expression, role, variables(inventory, host))


# Host, and the numbers of its cluster and its peers.
NODES_OF_A_PAIR = [(f"{cluster}{n}", cluster, n) for cluster in "ab" for n in (1, 3)]


@pytest.mark.parametrize(("host", "cluster", "number"), NODES_OF_A_PAIR, ids=[host for host, _, _ in NODES_OF_A_PAIR])
def test_a_node_of_two_clusters_that_share_nothing_knows_its_own(host: str, cluster: str, number: int) -> None:
    nodes = [f"{cluster}{n}" for n in (1, 2, 3)]
    assert value(PAIR, host, "deployment_cluster_nodes") == nodes
    assert value(PAIR, host, "deployment_pool_nodes") == nodes
    names = [node if cluster == "a" else f"{node}.b.internal" for node in nodes]
    assert value(PAIR, host, "rabbitmq_cluster_nodes") == [f"rabbit@{name}" for name in names]
    assert value(PAIR, host, "rabbitmq_peers") == [node for node in nodes if node != f"{cluster}{number}"]
    assert value(PAIR, host, "rabbitmq_cluster_hosts | map(attribute='name')") == names
    assert value(PAIR, host, "rabbitmq_balancers") == [
        {"name": f"lb{cluster}", "section": f"cluster_{cluster}", "socket": "/run/haproxy/admin.sock"}
    ]


@pytest.mark.parametrize("cluster", ["a", "b"])
def test_a_balancer_of_two_pools_that_share_nothing_serves_its_own(cluster: str) -> None:
    host = f"lb{cluster}"
    assert value(PAIR, host, "haproxy_servers | map(attribute='name')") == [f"{cluster}{n}" for n in (1, 2, 3)]
    assert value(PAIR, host, "deployment_pool_balancers") == [host]
    assert value(PAIR, host, "keepalived_peers") == []
    assert value(PAIR, host, "haproxy_section") == f"cluster_{cluster}"


@pytest.mark.parametrize("host", ["rabbit1", "rabbit2"])
def test_two_clusters_in_one_pool_are_no_peers_and_have_one_balancer(host: str) -> None:
    assert value(WARREN, host, "deployment_cluster_nodes") == [host]
    assert value(WARREN, host, "rabbitmq_cluster_nodes") == [f"rabbit@{host}"]
    assert value(WARREN, host, "rabbitmq_peers") == []
    assert value(WARREN, host, "deployment_pool_nodes") == ["rabbit1", "rabbit2"]
    assert value(WARREN, host, "rabbitmq_balancers | map(attribute='name')") == ["lb1"]
    assert value(WARREN, host, "rabbitmq_balancers[0].section") == "warren"


def test_a_host_that_is_node_and_balancer_lets_in_what_both_need(tmp_path: Path) -> None:
    groups = {group: {"hosts": {"both": {"ansible_host": "10.0.0.1"}}} for group in ("rabbitmq", "haproxy")}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    both = inventory_variables("both", facts=DEPLOYED, inventory=tmp_path)
    given = {"rabbitmq_amqp_port": 5672, "rabbitmq_management_port": 15672, "rabbitmq_address": "10.0.0.1"}
    names = evaluate("firewall_rules | map(attribute='name')", "firewall", both | given)
    assert [name.split()[0] for name in names] == ["AMQP", "Management", "The", "AMQP", "Statistics"]


def test_a_pool_of_two_clusters_has_the_nodes_of_both_one_of_them_standing_by() -> None:
    assert value(WARREN, "lb1", "deployment_cluster_nodes") == []
    assert value(WARREN, "lb1", "haproxy_servers | map(attribute='name')") == ["rabbit1", "rabbit2"]
    lines = render("haproxy.cfg", "haproxy", variables(WARREN, "lb1")).splitlines()
    assert {line.split()[1]: line.endswith(" backup") for line in lines if line.startswith("    server ")} == {
        "rabbit1": False,
        "rabbit2": True,
    }


NODES = [f"rabbit{n}.example.com" for n in (1, 2, 3)]
BALANCERS = [f"lb{n}.example.com" for n in (1, 2)]
ROLES_OF_THE_EXAMPLE = [
    *((host, role) for host in NODES for role in ("rabbitmq", "firewall")),
    *((host, role) for host in BALANCERS for role in ("haproxy", "keepalived", "firewall")),
]
# What a host is asked for before these are rendered.
READ = {"__keepalived_lines": ["route 192.0.2.0/24 dev eth0 proto kernel", "events"]}
TEMPLATES = {
    "rabbitmq": ("rabbitmq.conf", "advanced.config", "rabbitmq-env.conf", "enabled_plugins", "hosts"),
    "haproxy": ("haproxy.cfg", "next-steps.txt"),
    "keepalived": ("keepalived.conf", "haproxy-answers"),
    "firewall": ("firewall.nft", "rabbitproof-firewall.service"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that the inventory does not give are generated below HOME."""
    monkeypatch.setenv("HOME", str(tmp_path))


def refusals(role: str, entry_point: str, values: dict[str, Any], role_of_the_values: str) -> list[str]:
    options = read_yaml(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"][entry_point]["options"]
    given = {name: evaluate(name, role_of_the_values, values) for name in options if name in values}
    return list(ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True).error_messages)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("host", "role"), ROLES_OF_THE_EXAMPLE)
def test_the_example_passes_the_specification_of_every_role(host: str, role: str) -> None:
    assert refusals(role, "main", variables(EXAMPLE, host), role) == []


@pytest.mark.parametrize(("host", "role"), [(NODES[0], "rabbitmq"), (BALANCERS[0], "haproxy")])
def test_the_services_of_the_example_pass_the_specification_of_their_role(host: str, role: str) -> None:
    assert refusals("service", "define", variables(EXAMPLE, host) | given(role), role) == []


@pytest.mark.parametrize(("host", "role"), ROLES_OF_THE_EXAMPLE)
def test_every_file_of_the_example_can_be_rendered(host: str, role: str) -> None:
    for template in TEMPLATES[role]:
        text = render(template, role, variables(EXAMPLE, host) | READ)
        assert text.strip()
        assert "{{" not in text
        assert "{%" not in text


@pytest.mark.parametrize("host", BALANCERS)
def test_haproxy_accepts_the_example_without_a_warning(
    host: str,
    haproxy: str,
    state_file: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(render("haproxy.cfg", "haproxy", variables(EXAMPLE, host) | {"haproxy_state_file": state_file}))
    assert not complaint(haproxy, path)


def test_the_balancers_of_the_example_are_each_others_peers_and_the_first_goes_first() -> None:
    assert [value(EXAMPLE, host, "keepalived_peers") for host in BALANCERS] == [["192.0.2.22"], ["192.0.2.21"]]
    first, second = (value(EXAMPLE, host, "keepalived_priority") for host in BALANCERS)
    assert first > second


def test_many_balancers_are_named_in_the_order_of_the_inventory(tmp_path: Path) -> None:
    # keepalived.conf would be another one on every run.
    shutil.copytree(EXAMPLE, tmp_path / "inventory")
    balancers = {f"lb{n}": {"ansible_host": f"192.0.2.2{n}"} for n in range(1, 8)}
    groups = {"rabbitmq": {"hosts": {"rabbit1": {"ansible_host": "192.0.2.11"}}}, "haproxy": {"hosts": balancers}}
    (tmp_path / "inventory/hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    peers = value(tmp_path / "inventory", "lb4", "keepalived_peers")
    assert peers == [f"192.0.2.2{n}" for n in (1, 2, 3, 5, 6, 7)]


def test_no_playbook_and_no_wiring_loses_the_order_of_the_inventory() -> None:
    # Ansible's filters for sets give another order in every process.
    files = [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("playbooks/group_vars/*.yml")]
    sets = re.compile(r"\| *(difference|intersect|union|symmetric_difference)\b")
    assert not [(path.name, line) for path in files for line in path.read_text().splitlines() if sets.search(line)], (
        "use select('in', …) or reject('in', …)"
    )


def test_the_nodes_of_the_example_have_long_names() -> None:
    assert "USE_LONGNAME=true\n" in render("rabbitmq-env.conf", "rabbitmq", variables(EXAMPLE, NODES[0]))
    assert "192.0.2.13 rabbit3.example.com rabbit3\n" in render("hosts", "rabbitmq", variables(EXAMPLE, NODES[0]))
