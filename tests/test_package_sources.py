"""What the roles write for apt, shown to the real apt in a directory of its own: nothing of this machine is touched."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.apt_repository import SigningKey, package, publish
from tests.conftest import CompareWithGolden
from tests.rendering import ROOT, evaluate

ARCHITECTURE = subprocess.run(
    ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
).stdout.strip()
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FORKY: dict[str, Any] = {
    "name": "forky",
    "uris": ["http://mirror.example/debian"],
    "suites": ["forky"],
    "components": ["main"],
    "signed_by": KEYRING,
    "check_valid_until": False,
    "pins": ["release n=forky"],
}


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey()


def apt_files(**options: Any) -> dict[str, str]:
    """What roles/service writes below /etc/apt for these variables of roles/rabbitmq, path to text."""
    options = {"rabbitmq_distribution": "debian/bookworm"} | options
    given = {
        "service_repositories": evaluate("__rabbitmq_unpinned_repositories", "rabbitmq", options),
        "service_pins": evaluate("__rabbitmq_pins", "rabbitmq", options),
        "ansible_search_path": [str(ROOT / "roles/service")],
        "ansible_managed": "Ansible managed",
    }
    return dict(evaluate("__service_apt_files", "service", given))


def custom(*repositories: dict[str, Any], **options: Any) -> dict[str, str]:
    return apt_files(rabbitmq_package_source="custom", rabbitmq_apt_repositories=list(repositories), **options)


def at(directory: Path, key: SigningKey, **more: Any) -> dict[str, Any]:
    """A repository in a directory of this machine."""
    return {
        "name": directory.name,
        "uris": [f"file:{directory}"],
        "suites": ["./"],
        "signed_by": key.public,
        "pins": [f"release n={directory.name}"],
    } | more


def offer(rabbitmq: str, erlang: str) -> str:
    """The list of a repository with one RabbitMQ and the Erlang packages of one build."""
    return "\n".join(
        [
            package("rabbitmq-server", rabbitmq, architecture="all", depends="erlang-base, erlang-ssl"),
            package("erlang-base", erlang, architecture=ARCHITECTURE),
            package("erlang-ssl", erlang, architecture=ARCHITECTURE, depends=f"erlang-base (= {erlang})"),
            package("other", "2", architecture="all"),
        ]
    )


@dataclass(frozen=True)
class Apt:
    """The real apt on a machine of its own, which has nothing installed."""

    root: Path

    def write(self, files: dict[str, str]) -> None:
        """Write files as the role does; what is absolute in them is meant to be below the root."""
        for path, text in files.items():
            target = self.root / path.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text.replace("/etc/apt/", f"{self.root}/etc/apt/"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    def update(self) -> str:
        """Read the lists; return what apt complains of."""
        done = self.run("apt-get", "update")
        return "" if done.returncode == 0 and "W:" not in done.stderr else done.stderr

    def would_install(self, *names: str) -> dict[str, str]:
        """Return package and version of what would be installed."""
        done = self.run("apt-get", "install", "--simulate", "--no-install-recommends", *names)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(re.findall(r"^Inst (\S+) \((\S+) ", done.stdout, re.MULTILINE))


RunApt = Callable[[dict[str, str]], Apt]


@pytest.fixture
def apt(tmp_path: Path) -> RunApt:
    def start(files: dict[str, str]) -> Apt:
        root = tmp_path / "machine"
        for name in (
            "etc/apt/apt.conf.d",
            "etc/apt/trusted.gpg.d",
            "etc/apt/sources.list.d",
            "etc/apt/preferences.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg",
        ):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "apt.conf").write_text(
            f'Dir "{root}/";\nDir::State::status "{root}/var/lib/dpkg/status";\nAPT::Architecture "{ARCHITECTURE}";\n'
            'APT::Architectures {};\nAPT::Sandbox::User "root";\nAcquire::Languages "none";\n'
        )
        machine = Apt(root)
        machine.write(files)
        return machine

    return start


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("forky", custom(FORKY, rabbitmq_version="4.3")),
        ("team-bookworm", apt_files(rabbitmq_package_source="team_rabbitmq", rabbitmq_erlang_version="27.3")),
        (
            "team-trixie",
            apt_files(rabbitmq_package_source="team_rabbitmq", rabbitmq_distribution="debian/trixie"),
        ),
    ],
)
def test_the_files_for_apt_are_their_golden_files(name: str, files: dict[str, str], golden: CompareWithGolden) -> None:
    golden(f"apt/{name}.txt", "\n".join(f"==> {path} <==\n{text}" for path, text in sorted(files.items())))


def test_the_distribution_alone_needs_no_file() -> None:
    assert apt_files() == {}


def test_versions_of_the_distribution_are_pinned_without_a_source() -> None:
    assert list(apt_files(rabbitmq_version="4.0.5")) == ["/etc/apt/preferences.d/rabbitproof"]


def test_a_key_on_the_host_is_not_written_and_one_on_the_control_side_is(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "key.asc").write_text(key.public)
    paths = set(custom(FORKY, FORKY | {"name": "mirror", "signed_by": str(tmp_path / "key.asc")}))
    assert "/etc/apt/keyrings/rabbitproof-mirror.asc" in paths
    assert "/etc/apt/keyrings/rabbitproof-forky.asc" not in paths


def test_apt_takes_rabbitmq_and_all_of_its_erlang_from_the_wanted_versions(
    tmp_path: Path, key: SigningKey, apt: RunApt
) -> None:
    publish(tmp_path / "old", offer("4.2.1-1", "1:26.2.5+dfsg-1"), key=key, suite="old")
    publish(tmp_path / "new", offer("4.2.9-1", "1:27.3.4.1+dfsg-1"), key=key, suite="new")
    publish(tmp_path / "newest", offer("4.2.10-1", "1:29.1+dfsg-1"), key=key, suite="newest")
    repositories = [at(tmp_path / name, key) for name in ("old", "new", "newest")]
    machine = apt(custom(*repositories, rabbitmq_version="4.2.1", rabbitmq_erlang_version="27"))
    assert not machine.update()
    assert machine.would_install("rabbitmq-server") == {
        "rabbitmq-server": "4.2.1-1",
        "erlang-base": "1:27.3.4.1+dfsg-1",
        "erlang-ssl": "1:27.3.4.1+dfsg-1",
    }


def test_nothing_but_what_is_named_is_preferred_from_a_foreign_repository(
    tmp_path: Path, key: SigningKey, apt: RunApt
) -> None:
    publish(tmp_path / "own", package("other", "1", architecture="all"), key=key, suite="own")
    publish(tmp_path / "foreign", offer("4.3.6-1", "1:27.3"), key=key, suite="foreign")
    machine = apt(custom(at(tmp_path / "foreign", key)))
    machine.write(
        {"/etc/apt/sources.list": f"deb [signed-by=/etc/apt/keyrings/rabbitproof-foreign.asc] file:{tmp_path}/own ./\n"}
    )
    assert not machine.update()
    chosen = machine.would_install("rabbitmq-server", "other")
    assert (chosen["rabbitmq-server"], chosen["other"]) == ("4.3.6-1", "1")


def test_a_repository_that_another_key_has_signed_is_refused(tmp_path: Path, key: SigningKey, apt: RunApt) -> None:
    publish(tmp_path / "mirror", offer("4.3.6-1", "1:27.3"), key=SigningKey(), suite="mirror")
    complaint = apt(custom(at(tmp_path / "mirror", key))).update()
    assert "is not signed" in complaint, complaint or "apt accepted it"


def test_a_repository_that_nobody_has_signed_is_refused(tmp_path: Path, key: SigningKey, apt: RunApt) -> None:
    publish(tmp_path / "mirror", offer("4.3.6-1", "1:27.3"), key=None, suite="mirror")
    complaint = apt(custom(at(tmp_path / "mirror", key))).update()
    assert "is not signed" in complaint, complaint or "apt accepted it"


def test_a_list_that_was_changed_after_it_was_signed_is_refused(tmp_path: Path, key: SigningKey, apt: RunApt) -> None:
    publish(tmp_path / "mirror", offer("4.3.6-1", "1:27.3"), key=key, suite="mirror")
    with (tmp_path / "mirror/Packages").open("a") as packages:
        packages.write("\n" + package("rabbitmq-server", "9", architecture="all"))
    complaint = apt(custom(at(tmp_path / "mirror", key))).update()
    assert "unexpected size" in complaint or "Hash Sum mismatch" in complaint, complaint or "apt accepted it"


@pytest.mark.parametrize("checked", [True, False])
def test_lists_that_have_expired_are_refused_unless_told_otherwise(
    checked: bool, tmp_path: Path, key: SigningKey, apt: RunApt
) -> None:
    expired = "Valid-Until: Thu, 02 Jan 2026 00:00:00 UTC\n"
    publish(tmp_path / "mirror", offer("4.3.6-1", "1:27.3"), key=key, suite="mirror", more=expired)
    complaint = apt(custom(at(tmp_path / "mirror", key, check_valid_until=checked))).update()
    assert ("expired" in complaint) == checked, complaint
