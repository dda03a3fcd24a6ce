import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN, CompareWithGolden
from tests.rendering import ROOT, Variables, evaluate, read_trusted, render, role_variables, setting_lines

NODES = {f"broker{n}": f"10.0.0.1{n}" for n in (1, 2, 3)}
BALANCERS = {f"lb{n}": f"10.0.0.2{n}" for n in (1, 2)}


def wired(group: str, **options: Any) -> dict[str, Any]:
    """The variables of a host of a group, with rules as playbooks/group_vars derives them."""
    hostvars = {
        name: {"deployment_address": address, "rabbitmq_address": address}
        for name, address in (NODES | BALANCERS).items()
    }
    deployment: dict[str, Any] = {
        "hostvars": hostvars,
        "deployment_cluster_nodes": list(NODES),
        "deployment_balancer_addresses": list(BALANCERS.values()),
        "rabbitmq_amqp_port": 5672,
        "rabbitmq_management_port": 15672,
        "keepalived_vip": "10.0.0.100/24",
        "keepalived_peers": ["10.0.0.22"],
    }
    variables = read_trusted(ROOT / f"playbooks/group_vars/{group}.yml")
    rules = variables["deployment_node_rules" if group == "rabbitmq" else "deployment_balancer_rules"]
    return deployment | {"firewall_enabled": True, "firewall_rules": rules} | options


GOLDEN_CASES: dict[str, dict[str, Any]] = {
    "node": wired("rabbitmq"),
    "balancer": wired("haproxy"),
    "networks": wired(
        "rabbitmq", firewall_node_client_networks=["10.1.0.0/16", "fd00:1::/32"], firewall_admin_networks=["10.2.0.7"]
    ),
    "no-rules": {"firewall_rules": []},
}


def rules(variables: Variables) -> str:
    return render("firewall.nft", "firewall", variables)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_a_named_case_is_its_golden_file(name: str, golden: CompareWithGolden) -> None:
    golden(f"firewall/{name}.nft", rules(GOLDEN_CASES[name]))


def test_the_unit_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("firewall/rabbitproof-firewall.service", render("rabbitproof-firewall.service", "firewall", {}))


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.name for path in (GOLDEN / "firewall").iterdir()} == {
        *(f"{name}.nft" for name in GOLDEN_CASES),
        "rabbitproof-firewall.service",
    }


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_nftables_accepts_it(name: str, tmp_path: Path) -> None:
    nft = shutil.which("nft") or shutil.which("nft", path="/usr/sbin")
    if nft is None or os.geteuid() != 0:
        pytest.skip("nft is not installed or we are not root; the role lets it check the file on every host")
    path = tmp_path / "firewall.nft"
    path.write_text(rules(GOLDEN_CASES[name]))
    checked = subprocess.run([nft, "--check", "--file", path], check=False, capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, f"{checked.stderr}\nof\n{path.read_text()}"


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_nothing_is_dropped_but_at_ports_and_protocols_that_a_rule_names(name: str) -> None:
    lines = list(setting_lines(rules(GOLDEN_CASES[name])))
    drops = [line for line in lines if line.endswith("drop")]
    assert all(line.startswith(("tcp dport { ", "meta l4proto vrrp")) for line in drops)
    assert "type filter hook input priority filter; policy accept;" in lines
    assert " 22" not in " ".join(drops)


def test_every_drop_comes_after_every_accept() -> None:
    verdicts = [
        line.split()[-1] for line in setting_lines(rules(GOLDEN_CASES["networks"])) if line.endswith(("accept", "drop"))
    ]
    assert verdicts == sorted(verdicts)


def test_only_nodes_of_the_cluster_reach_each_other_between_nodes() -> None:
    (line,) = [line for line in setting_lines(rules(wired("rabbitmq"))) if "25672" in line and "accept" in line]
    assert line == "tcp dport { 4369, 25672 } ip saddr { 10.0.0.11, 10.0.0.12, 10.0.0.13 } accept"


def test_nodes_reach_each_other_from_the_address_of_their_service_too() -> None:
    variables = wired("rabbitmq")
    variables["hostvars"]["broker2"]["rabbitmq_address"] = "broker2.example.com"
    variables["hostvars"]["broker3"]["rabbitmq_address"] = "10.9.0.13"
    (line,) = [line for line in setting_lines(rules(variables)) if "25672" in line and "accept" in line]
    assert line.endswith("ip saddr { 10.0.0.11, 10.0.0.12, 10.0.0.13, 10.9.0.13 } accept")


def test_only_peers_may_speak_vrrp() -> None:
    lines = [line for line in setting_lines(rules(wired("haproxy"))) if "vrrp" in line]
    assert lines == ["meta l4proto vrrp ip saddr { 10.0.0.22 } accept", "meta l4proto vrrp drop"]
    assert not [line for line in setting_lines(rules(wired("haproxy", keepalived_vip=""))) if "vrrp" in line]


def test_statistics_are_for_nobody_until_somebody_is_named() -> None:
    lines = list(setting_lines(rules(wired("haproxy"))))
    assert [line for line in lines if "8100" in line] == ["tcp dport { 5672, 8100 } drop"]


def test_the_firewall_is_off_by_default() -> None:
    assert role_variables("firewall", {})["firewall_enabled"] is False


def test_ports_given_as_text_are_sorted_as_numbers() -> None:
    rule = {"name": "one", "protocol": "tcp", "ports": ["15672", 4369], "sources": []}
    assert evaluate("__firewall_tcp_ports", "firewall", {"firewall_rules": [rule]}) == [4369, 15672]
