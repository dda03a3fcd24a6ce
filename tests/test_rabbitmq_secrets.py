"""What becomes of the generated secrets of a cluster, and of a cluster whose secrets are somebody else's."""

from pathlib import Path

import pytest

from tests.management_api import Api, Ran, run

COOKIE = "A cookie of twenty letters"
SECRETS = ["erlang.cookie", "admin.password", "app.password", "monitoring.password"]


def forget(directory: Path, peers: list[str]) -> set[str]:
    """Destroy the node "a" of a cluster with these peers; returns which secrets are left."""
    kept = directory / "secrets"
    kept.mkdir()
    for name in SECRETS:
        (kept / f"one.{name}").write_text("secret")
    variables = {
        "rabbitmq_secrets_dir": str(kept),
        "rabbitmq_cluster_name": "one",
        "rabbitmq_peers": peers,
        "rabbitmq_management_port": 15672,
    }
    ran = run("forget", directory, variables)
    assert ran.status == 0, ran.output
    return {path.name for path in kept.iterdir()}


def test_the_secrets_of_a_cluster_go_with_all_of_its_nodes(tmp_path: Path) -> None:
    assert forget(tmp_path, []) == set()


def test_a_node_that_goes_alone_leaves_the_cluster_its_secrets(tmp_path: Path) -> None:
    assert forget(tmp_path, ["b", "c"]) == {f"one.{name}" for name in SECRETS}


def compare_objects(directory: Path, cookie: str) -> Ran:
    """Bring objects to a cluster that has this cookie, and refuses the administrator."""
    (directory / ".erlang.cookie").write_text(cookie)
    with Api({}).served() as api:
        variables = {
            "rabbitmq_management_port": api.port,
            "rabbitmq_deployed_version": "4.0.5",
            "rabbitmq_home": str(directory),
            "rabbitmq_erlang_cookie": COOKIE,
            "rabbitmq_admin_user": "admin",
            "rabbitmq_admin_password": "zz-admin-zz",
        }
        return run("objects", directory, variables)


@pytest.mark.parametrize(("cookie", "refused"), [("The cookie of another one", True), (COOKIE, False)])
def test_passwords_are_not_replaced_by_those_of_another_control_side(
    tmp_path: Path, cookie: str, refused: bool
) -> None:
    ran = compare_objects(tmp_path, cookie)
    assert ("these are not its secrets" in ran.output) == refused, ran.output
    # There is no broker here that could say more.
    assert ("does not say what users and vhosts it has" in ran.output) != refused, ran.output
