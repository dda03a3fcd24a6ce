import importlib.util
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import GOLDEN, CompareWithGolden
from tests.rendering import ROOT, evaluate, read_yaml, render, role_variables, setting_lines


def seen(*, route: str = "10.0.0.0/24 dev eth0 proto kernel src 10.0.0.21", events: bool = True) -> dict[str, Any]:
    """What tasks/inspect.yml reads of a host."""
    lines = ["address lo 127.0.0.1/8", "address eth0 10.0.0.21/24", *([f"route {route}"] if route else [])]
    return {"__keepalived_lines": lines + (["events"] if events else [])}


BALANCER: dict[str, Any] = {
    "keepalived_vip": "10.0.0.100/24",
    "keepalived_address": "10.0.0.21",
    "keepalived_balancers": ["lb1", "lb2", "lb3"],
    "keepalived_peers": ["10.0.0.22", "10.0.0.23"],
} | seen()
GOLDEN_CASES: dict[str, dict[str, Any]] = {
    "host": {},
    "container": seen(events=False),
    "alone": {"keepalived_peers": []},
}


def configuration(**options: Any) -> str:
    return render("keepalived.conf", "keepalived", BALANCER | options)


def mark(text: str) -> str:
    match = re.search(r"^    vrrp_process_name (vrrp-[0-9a-f]{10})$", text, re.MULTILINE)
    assert match, f"no line 'vrrp_process_name MARK' in\n{text}"
    return match[1]


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_a_named_case_is_its_golden_file(name: str, golden: CompareWithGolden) -> None:
    golden(f"keepalived/{name}.conf", configuration(**GOLDEN_CASES[name]))


def test_the_question_is_its_golden_file(golden: CompareWithGolden) -> None:
    golden("keepalived/haproxy-answers", render("haproxy-answers", "keepalived", BALANCER))


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.name for path in (GOLDEN / "keepalived").iterdir()} == {
        *(f"{name}.conf" for name in GOLDEN_CASES),
        "haproxy-answers",
    }


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_keepalived_accepts_it(name: str, tmp_path: Path) -> None:
    keepalived = shutil.which("keepalived") or shutil.which("keepalived", path="/usr/sbin")
    if keepalived is None or os.geteuid() != 0:
        pytest.skip("keepalived is not installed or we are not root; the role lets it check the file on every host")
    interface = next((name for _, name in socket.if_nameindex() if name != "lo"), None)
    if interface is None:
        pytest.skip("this machine has no network interface but lo, which keepalived refuses")
    # What has to be there when keepalived looks: the question, its user, and the interface.
    options = {
        "keepalived_config_dir": str(tmp_path),
        "keepalived_check_user": "nobody",
        "keepalived_interface": interface,
    }
    (tmp_path / "haproxy-answers").write_text("#!/bin/sh\n")
    (tmp_path / "haproxy-answers").chmod(0o755)
    path = tmp_path / "keepalived.conf"
    path.write_text(configuration(**(GOLDEN_CASES[name] | options)))
    checked = subprocess.run(
        [keepalived, "--config-test", f"--use-file={path}"], check=False, capture_output=True, text=True, timeout=30
    )
    # The test of 2.2.7 ends itself with SIGTERM when script_user is not root.
    assert checked.returncode in (0, -signal.SIGTERM), checked
    assert not checked.stderr, f"{checked.stderr}\nof\n{path.read_text()}"


def test_nothing_has_a_weight_because_nopreempt_would_then_keep_the_vip_on_a_balancer_that_fails() -> None:
    lines = list(setting_lines(configuration()))
    assert "nopreempt" in lines
    assert not [line for line in lines if "weight" in line]


def test_no_password_is_written_that_version_3_would_ignore() -> None:
    assert not [line for line in setting_lines(configuration()) if line.startswith("auth")]


def test_where_the_kernel_reports_no_process_only_the_question_counts() -> None:
    # keepalived would see no HAProxy at all, and no balancer would ever have the VIP.
    lines = list(setting_lines(configuration(**seen(events=False))))
    assert not [line for line in lines if "track_process" in line]
    assert "track_script {" in lines


def test_the_interface_is_found_by_the_network_of_the_vip() -> None:
    route = "10.0.0.0/24 dev bond0.7 proto kernel src 10.0.0.21"
    assert "interface bond0.7" in setting_lines(configuration(**seen(route=route)))
    assert "interface eth1" in setting_lines(configuration(keepalived_interface="eth1"))


def test_a_host_outside_the_network_of_the_vip_has_no_route() -> None:
    assert evaluate("__keepalived_route", "keepalived", BALANCER | seen(route="")) == ""
    assert evaluate("__keepalived_addresses", "keepalived", BALANCER) == ["lo 127.0.0.1/8", "eth0 10.0.0.21/24"]


# Another value for every option of the role. Those of the second table change nothing in the file.
OTHER_VALUES: dict[str, Any] = {
    "keepalived_vip": "10.0.0.101/24",
    "keepalived_address": "10.0.0.20",
    "keepalived_interface": "eth1",
    "keepalived_vrid": 52,
    "keepalived_priority": 99,
    "keepalived_peers": ["10.0.0.22"],
    "keepalived_advert_interval": 1.0,
    "keepalived_track_process": "other",
    "keepalived_check_user": "other",
    "keepalived_check_interval": 2.0,
    "keepalived_check_timeout": 2.0,
    "keepalived_check_fall": 3,
    "keepalived_check_rise": 3,
    "keepalived_config_dir": "/other",
}
# keepalived runs the question anew each time, so a change of it needs no reload.
NOT_IN_THE_FILE = {"keepalived_balancers", "keepalived_check_socket", "keepalived_service", "keepalived_verify_timeout"}


@pytest.mark.parametrize("option", OTHER_VALUES)
def test_another_value_changes_the_name_of_the_running_process(option: str) -> None:
    assert mark(configuration(**{option: OTHER_VALUES[option]})) != mark(configuration())


def test_every_option_is_known_to_change_the_file_or_not() -> None:
    options = read_yaml(ROOT / "roles/keepalived/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(OTHER_VALUES) ^ NOT_IN_THE_FILE == set(options)


def test_the_mark_fits_into_the_name_of_a_process() -> None:
    assert len(mark(configuration())) <= 15


def test_the_wiring_takes_the_defaults_of_the_roles() -> None:
    # Where an inventory leaves them out, another role cannot see them.
    wiring = (ROOT / "playbooks/group_vars/haproxy.yml").read_text()
    wiring += (ROOT / "playbooks/group_vars/rabbitmq.yml").read_text()
    defaults = {
        name: value
        for role in ("haproxy", "keepalived", "rabbitmq")
        for name, value in role_variables(role, {}).items()
    }
    given = re.findall(r"(\w+) \| default\('?([\w./]+)'?\)", wiring)
    assert len(given) >= 6
    assert [
        (name, value) for name, value in given if not name.startswith("deployment_") and str(defaults[name]) != value
    ] == []


@pytest.fixture(scope="module")
def probe() -> ModuleType:
    specification = importlib.util.spec_from_file_location("probe", ROOT / "roles/keepalived/files/probe.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def ipv4(payload: bytes, *, source: str = "10.0.0.7", protocol: int = 112) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("224.0.0.18")
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 255, protocol, 0) + addresses + payload


@pytest.mark.parametrize("version", [2, 3])
def test_the_probe_knows_an_advert_of_either_version(probe: ModuleType, version: int) -> None:
    assert probe.advert(ipv4(bytes([version << 4 | 1, 51, 100, 1, 0, 20, 0, 0]))) == ("10.0.0.7", 51)


@pytest.mark.parametrize(
    "packet",
    [ipv4(b""), ipv4(bytes(8)), ipv4(b"\x31\x33"), ipv4(b"\x31\x33\x64\x01\x00\x14\x00\x00", protocol=6)],
    ids=["empty", "zeros", "short", "tcp"],
)
def test_the_probe_takes_nothing_else_for_an_advert(probe: ModuleType, packet: bytes) -> None:
    assert probe.advert(packet) is None


def test_the_probe_asks_without_claiming_an_address(probe: ModuleType) -> None:
    frame = probe.arp_probe(b"\x02\0\0\0\0\x01", "10.0.0.100")
    assert len(frame) == 42
    assert frame[28:32] == bytes(4)
    assert frame[38:42] == socket.inet_aton("10.0.0.100")
    assert probe.arp_reply(frame) is None, "a question is no answer"


def test_the_probe_reads_who_answers(probe: ModuleType) -> None:
    reply = bytearray(probe.arp_probe(b"\x02\0\0\0\0\x07", "10.0.0.21"))
    reply[21] = 2
    reply[28:32] = socket.inet_aton("10.0.0.100")
    assert probe.arp_reply(bytes(reply)) == ("10.0.0.100", "02:00:00:00:00:07")
    assert probe.arp_reply(bytes(reply[:30])) is None
