"""Runs playbooks/preflight.yml, which changes nothing, against copies of inventory/local with one thing wrong."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering import ROOT

# Ports that a deployment on this machine does not have, and that the kernel does not give to clients.
OFFSET = 2000
# Become root even where we are root already, through a command that does not do it.
NO_ROOT = {"ANSIBLE_BECOME_ALLOW_SAME_USER": "true", "ANSIBLE_BECOME_EXE": "/bin/false"}


@dataclass(frozen=True)
class Preflight:
    """What an operator saw."""

    status: int
    output: str
    root: Path

    @property
    def refusals(self) -> set[str]:
        """The different messages of failed tasks; a loop's summary of its items is none."""
        failed = re.findall(r"^(?:fatal|failed): \[[^]]+\].*? => (\{.*\})$", self.output, re.MULTILINE)
        return {json.loads(result)["msg"] for result in failed} - {"One or more items failed"}

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        return {
            host: int(count) for host, count in re.findall(r"^(\S+) +: ok=.* changed=(\d+)", self.output, re.MULTILINE)
        }

    def assert_refused(self, *words: str) -> None:
        """Assert that there was one message with all these words, a status that says so, and that nothing changed."""
        assert self.status != 0, f"preflight accepted it:\n{self.output}"
        assert len(self.refusals) == 1, f"one clear message was to be expected, not {self.refusals}\n{self.output}"
        (message,) = self.refusals
        assert not [word for word in words if word not in message], f"{words} should all be in: {message}"
        self.assert_nothing_changed()

    def assert_nothing_changed(self) -> None:
        assert self.changed, f"no recap in:\n{self.output}"
        assert not any(self.changed.values()), f"preflight changed something: {self.changed}\n{self.output}"
        assert not self.root.exists(), f"preflight left {self.root}"


RunPreflight = Callable[..., Preflight]


@pytest.fixture
def preflight(tmp_path: Path) -> RunPreflight:
    def run(
        *, nodes: int = 1, balancers: int = 1, environment: dict[str, str] | None = None, **variables: Any
    ) -> Preflight:
        inventory, home, root = (tmp_path / name for name in ("inventory", "home", "root"))
        shutil.copytree(ROOT / "inventory/local", inventory)
        hosts = {
            "rabbitmq": {"hosts": {f"rabbit_{index}": {"local_index": index} for index in range(nodes)}},
            "haproxy": {"hosts": {f"balancer_{index}": None for index in range(balancers)}},
            "machines": {"hosts": {"this_machine": None}},
        }
        (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": hosts}}))
        given = {"local_root": str(root), "local_port_offset": OFFSET} | variables
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--inventory",
            str(inventory),
            "--extra-vars",
            json.dumps(given),
            "playbooks/preflight.yml",
        ]
        # Secrets are generated below HOME; nothing of the caller's own settings of Ansible.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            # One line a result: that is easier to read for a test.
            env=inherited
            | {"HOME": str(home), "ANSIBLE_NOCOLOR": "true", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
            | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return Preflight(status=done.returncode, output=done.stdout, root=root)

    return run


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_an_inventory_without_balancer_is_refused(preflight: RunPreflight) -> None:
    preflight(balancers=0).assert_refused("no host in the group haproxy")


def test_an_inventory_without_nodes_is_refused(preflight: RunPreflight) -> None:
    preflight(nodes=0).assert_refused("no host in the group rabbitmq")


def test_an_inventory_without_any_host_is_refused(preflight: RunPreflight) -> None:
    run = preflight(nodes=0, balancers=0)
    assert run.status != 0
    assert any("no host in the group rabbitmq" in message for message in run.refusals), run.output
    run.assert_nothing_changed()


def test_a_profile_that_is_wrong_for_one_host_stops_the_run_for_all(preflight: RunPreflight) -> None:
    run = preflight(deployment_profile="{{ 'quick' if inventory_hostname == 'balancer_0' else 'lan' }}")
    run.assert_refused("deployment_profile is quick; it must be one of: default, lan")
    assert "Refuse bad variables of the nodes" not in run.output


def test_a_balancer_of_no_node_is_refused(preflight: RunPreflight) -> None:
    cluster = "{{ 'orders' if inventory_hostname == 'rabbit_0' else 'rabbitmq' }}"
    preflight(rabbitmq_cluster_name=cluster).assert_refused("balancer_0 has no node", "rabbitmq_cluster_name")


def test_ticktimes_that_differ_within_a_cluster_are_refused(preflight: RunPreflight) -> None:
    differing = "{{ 10 if inventory_hostname == groups['rabbitmq'] | first else 60 }}"
    preflight(nodes=2, rabbitmq_net_ticktime=differing).assert_refused(
        "rabbitmq_net_ticktime must be the same for all nodes of a cluster", "have 10, 60"
    )


def test_two_nodes_of_one_name_are_refused(preflight: RunPreflight) -> None:
    preflight(nodes=2, rabbitmq_nodename="rabbit@localhost").assert_refused(
        "Two nodes have the same rabbitmq_nodename", "rabbit@localhost", "a name of its own"
    )


def test_two_services_on_one_port_are_refused(preflight: RunPreflight) -> None:
    preflight(haproxy_port=5672 + OFFSET).assert_refused(
        "Port 7672 is given more than once", "rabbitmq_amqp_port of rabbit_0", "haproxy_port of balancer_0"
    )


def test_a_port_that_somebody_else_listens_on_is_refused(preflight: RunPreflight, port_in_use: int) -> None:
    preflight(rabbitmq_amqp_port=port_in_use).assert_refused(
        f"Port {port_in_use} is taken by", f"process {os.getpid()}", "give rabbit_0 a free port", "rabbitmq_amqp_port"
    )


def test_a_name_that_nobody_can_resolve_is_refused(preflight: RunPreflight) -> None:
    preflight(rabbitmq_nodename="rabbit@no-such-host.invalid").assert_refused(
        "rabbit_0 cannot resolve no-such-host.invalid", "rabbitmq_hosts_file"
    )


def test_one_vrid_for_two_pools_is_refused(preflight: RunPreflight) -> None:
    def by_host(zero: object, one: object) -> str:
        return f"{{{{ '{zero}' if inventory_hostname is match('.*_0') else '{one}' }}}}"

    preflight(
        nodes=2,
        balancers=2,
        service_manager="systemd",
        ansible_host="127.0.0.1",
        rabbitmq_cluster_name=by_host("a", "b"),
        haproxy_port=by_host(5670 + OFFSET, 5671 + OFFSET),
        haproxy_stats_port=by_host(8100 + OFFSET, 8101 + OFFSET),
        keepalived_vip=by_host("10.0.0.100/24", "10.0.0.101/24"),
    ).assert_refused("keepalived_vrid 51 is given to more than one pool of balancers: a, b")


def test_an_unknown_balance_algorithm_and_an_unknown_check_are_refused(preflight: RunPreflight) -> None:
    preflight(haproxy_balance="sometimes", haproxy_check="ping").assert_refused(
        "haproxy_balance must be one of: roundrobin, leastconn, got: sometimes",
        "haproxy_check must be one of: auto, http, amqp, tcp, got: ping",
    )


def test_an_unknown_profile_is_refused(preflight: RunPreflight) -> None:
    preflight(deployment_profile="wan").assert_refused("deployment_profile is wan; it must be one of: default, lan.")


def test_an_agent_that_nobody_would_run_is_refused(preflight: RunPreflight) -> None:
    preflight(rabbitmq_agent_port=15690).assert_refused("rabbitmq_agent_port is 15690", "must be 0 without systemd")


@pytest.mark.parametrize(
    "given",
    [
        {"rabbitmq_net_ticktime": 0},
        {"rabbitmq_net_setuptime": 0},
        {"rabbitmq_peer_user_timeout": -1},
        {"rabbitmq_client_user_timeout": 32513},
        {"rabbitmq_settings": {"net_ticktime": 30}},
        {"rabbitmq_settings": {"raft.adaptive_failure_detector.poll_interval": 500}},
        {"rabbitmq_client_user_timeout": 1000, "rabbitmq_settings": {"tcp_listen_options.backlog": 4096}},
    ],
    ids=["tick", "setup", "negative", "too long", "net_ticktime", "poll", "listen options"],
)
def test_times_of_detection_that_cannot_be_or_are_set_twice_are_refused(
    given: dict[str, Any], preflight: RunPreflight
) -> None:
    preflight(**given).assert_refused("rabbitmq_net_ticktime (", "must be positive whole numbers")


def test_an_unknown_version_is_refused(preflight: RunPreflight) -> None:
    preflight(rabbitmq_version="5.0").assert_refused("rabbitmq_version is 5.0", "supported are the series 3.10, ")


def test_a_version_that_yaml_takes_for_a_number_is_refused(preflight: RunPreflight) -> None:
    preflight(rabbitmq_version=4.0).assert_refused("rabbitmq_version is 4.0", "Quote it")


def test_a_repository_without_a_signing_key_is_refused(preflight: RunPreflight) -> None:
    repository = {
        "name": "mirror",
        "uris": ["http://mirror.example/debian"],
        "suites": ["./"],
        "signed_by": "",
        "pins": ["origin mirror.example"],
    }
    repositories = [repository, repository | {"name": "other"}]
    preflight(rabbitmq_package_source="custom", rabbitmq_apt_repositories=repositories).assert_refused(
        "rabbitmq_apt_repositories: signed_by of mirror gives no signing key",
        "not signed is not used.\nrabbitmq_apt_repositories: signed_by of other gives no signing key",
    )


def test_an_option_that_would_trust_a_repository_blindly_is_refused(preflight: RunPreflight) -> None:
    repository = {"name": "mirror", "uris": [], "suites": [], "signed_by": "", "pins": [], "trusted": True}
    preflight(rabbitmq_package_source="custom", rabbitmq_apt_repositories=[repository]).assert_refused(
        "rabbitmq_apt_repositories", "trusted"
    )


def test_a_source_without_repositories_is_refused(preflight: RunPreflight) -> None:
    preflight(rabbitmq_package_source="custom").assert_refused(
        "rabbitmq_package_source is custom and rabbitmq_apt_repositories has 0 elements"
    )


def test_times_and_counts_that_are_not_positive_are_refused_each_by_its_name(preflight: RunPreflight) -> None:
    preflight(haproxy_check_rise=0, haproxy_check_fall=-1, haproxy_check_inter=0, haproxy_slowstart=-1).assert_refused(
        "haproxy_check_inter is 0; it must be a positive whole number.\n"
        "haproxy_check_rise is 0; it must be a positive whole number.\n"
        "haproxy_check_fall is -1; it must be a positive whole number.\n"
        "haproxy_slowstart is -1; it must be 0 (off) or a positive whole number."
    )


def test_a_cookie_of_erlangs_own_shape_is_refused_without_showing_it(preflight: RunPreflight) -> None:
    cookie = "ABCDEFGHIJKLMNOPQRST"
    run = preflight(rabbitmq_erlang_cookie=cookie)
    run.assert_refused("rabbitmq_erlang_cookie must be", "not twenty capital letters")
    assert cookie not in run.output


def test_objects_that_cannot_be_are_refused_in_one_message_without_a_secret(preflight: RunPreflight) -> None:
    users = [{"name": "guest", "password": "guest", "tags": ["administrator"]}, {"name": "shop", "password": 987654321}]
    permissions = [{"user": "guest", "vhost": "nowhere", "configure": "", "write": "", "read": ""}]
    run = preflight(rabbitmq_objects={"users": users, "permissions": permissions})
    run.assert_refused(
        "rabbitmq_objects cannot be used",
        "user shop has a password that is no text; quote it",
        "permissions of guest in nowhere: the vhost nowhere is not among the vhosts",
    )
    assert "987654321" not in run.output


def test_a_distribution_that_nobody_has_tried_is_refused(preflight: RunPreflight) -> None:
    run = preflight(deployment_distributions=["Debian 99"])
    assert run.status != 0
    for host in ("rabbit_0", "balancer_0"):
        wanted = rf"{host} runs \w+ [\d.]+; supported are Debian 99\."
        assert any(re.fullmatch(wanted, message) for message in run.refusals), run.output
    run.assert_nothing_changed()


def test_a_host_on_which_we_may_not_become_root_is_refused(preflight: RunPreflight) -> None:
    run = preflight(environment=NO_ROOT)
    assert run.status != 0
    for host in ("rabbit_0", "balancer_0"):
        wanted = f"{host}: packages and services need root. Run this as root, or as a user that may use sudo"
        assert any(message.startswith(wanted) for message in run.refusals), run.output
    assert "WARNING" not in run.output, "an odd number of nodes is nothing to warn of"
    run.assert_nothing_changed()


def test_an_even_number_of_nodes_gets_a_warning(preflight: RunPreflight) -> None:
    # It ends where root is needed, right after the warning; a whole preflight takes much longer.
    run = preflight(nodes=2, environment=NO_ROOT)
    assert "WARNING: 2 nodes. An even number survives no more failures than one node less" in run.output
