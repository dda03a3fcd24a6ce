from pathlib import Path
from typing import Any

import pytest

from tests.rendering import ROOT, evaluate, inventory_variables, read_trusted, read_yaml, render

SCENARIOS = sorted(path.parent for path in ROOT.glob("molecule/*/molecule.yml"))
SHARED = ROOT / "molecule/shared/group_vars/all.yml"
OLD_MACHINE = {"cgroup": "tmpfs", "systemd": False, "nofile": "20000", "nproc": "96365"}
NEW_MACHINE = {"cgroup": "cgroup2fs", "systemd": True, "nofile": "1048576", "nproc": "unlimited"}

# podman's settings and the image belong to no role: any will do to evaluate them.
ROLE = "service"


def own_values(inventory: Path) -> dict[str, Any]:
    """Read what an inventory itself says for all hosts, without what it links to."""
    files = [inventory / "group_vars/all.yml", inventory / "group_vars/all/main.yml"]
    return {name: value for file in files for name, value in (read_yaml(file) or {}).items()}


def settings_of_podman(machine: dict[str, Any]) -> str:
    looked = {"lab_machine": machine}
    nproc = evaluate(read_trusted(SHARED)["lab_nproc"].strip("{} "), ROLE, looked)
    return render("containers.conf", ROLE, looked | {"lab_nproc": nproc})


def image(**values: Any) -> Any:
    found = {"lab_suite": "trixie", "lab_mirror": "http://mirror/debian", "lab_apt_options": []}
    return evaluate("lab_image", ROLE, dict(read_trusted(SHARED)) | found | values)


@pytest.mark.parametrize("name", ["lab_name", "lab_subnet"])
def test_no_two_labs_get_in_each_others_way(name: str) -> None:
    inventories = [
        ROOT / "inventory/lab",
        ROOT / "bench/inventory",
        *(scenario / "inventory" for scenario in SCENARIOS),
    ]
    values = [own_values(inventory)[name] for inventory in inventories]
    assert len(set(values)) == len(values), f"{name} must be different in {inventories}"


@pytest.mark.parametrize("link", [link for link in ROOT.glob("molecule/**/*.yml") if link.is_symlink()], ids=str)
def test_what_a_scenario_shares_with_the_lab_is_a_link_to_it(link: Path) -> None:
    assert not link.readlink().is_absolute()
    assert link.resolve().is_relative_to(ROOT / "inventory/lab")
    assert link.exists()


def test_two_clusters_of_one_inventory_know_only_their_own() -> None:
    variables = inventory_variables("a2", inventory=ROOT / "molecule/pair/inventory")
    assert evaluate("rabbitmq_cluster_nodes", "rabbitmq", variables) == ["rabbit@a1", "rabbit@a2", "rabbit@a3"]
    variables = inventory_variables("lbb", inventory=ROOT / "molecule/pair/inventory")
    assert evaluate("deployment_pool_nodes", "haproxy", variables) == ["b1", "b2", "b3"]
    assert evaluate("haproxy_section", "haproxy", variables) == "cluster_b"


def test_a_warren_is_one_pool_of_brokers_that_are_not_clustered() -> None:
    variables = inventory_variables("rabbit1", inventory=ROOT / "molecule/warren/inventory")
    assert evaluate("rabbitmq_cluster_nodes", "rabbitmq", variables) == ["rabbit@rabbit1"]
    variables = inventory_variables("lb1", inventory=ROOT / "molecule/warren/inventory")
    assert evaluate("haproxy_servers | map(attribute='address')", "haproxy", variables) == ["10.99.4.11", "10.99.4.12"]
    assert evaluate("haproxy_section", "haproxy", variables) == "warren"


def test_podman_gets_runc_where_crun_would_refuse_the_machine() -> None:
    settings = settings_of_podman(OLD_MACHINE)
    assert 'runtime = "runc"' in settings
    assert 'cgroup_manager = "cgroupfs"' in settings


def test_podman_keeps_its_defaults_where_they_work() -> None:
    settings = settings_of_podman(NEW_MACHINE)
    assert "runtime" not in settings
    assert "cgroup_manager" not in settings


@pytest.mark.parametrize("machine", [OLD_MACHINE, NEW_MACHINE], ids=["96365", "unlimited"])
def test_no_limit_is_raised(machine: dict[str, Any]) -> None:
    assert '"nproc=16384:16384"' in settings_of_podman(machine)
    assert '"nofile={nofile}:{nofile}"'.format_map(machine) in settings_of_podman(machine)


def test_an_image_of_the_same_recipe_is_the_same_image() -> None:
    assert image() == image()
    assert image().startswith("localhost/rabbitproof-lab:trixie-")


@pytest.mark.parametrize(
    "change",
    [
        {"lab_suite": "bookworm"},
        {"lab_mirror": "http://another/debian"},
        {"lab_packages": ["systemd"]},
        {"lab_apt_options": ['Acquire::Check-Date "false";']},
        {"lab_customizations": ["true"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_is_another_image(change: dict[str, Any]) -> None:
    assert image(**change) != image()
