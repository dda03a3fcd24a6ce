"""The filters over users, vhosts and the like; what brokers say of theirs was read from 3.10.8 and 4.0.5."""

import base64
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

from tests.rendering import ROOT, evaluate

NODE: dict[str, Any] = {
    "rabbitmq_nodename": "rabbit@broker1",
    "rabbitmq_address": "10.0.0.11",
    "rabbitmq_amqp_port": 5672,
    "rabbitmq_management_port": 15672,
    "rabbitmq_admin_password": "zz-admin-zz",
    "rabbitmq_app_password": "zz-app-zz",
    "rabbitmq_monitoring_password": "zz-monitoring-zz",
}
ALL = {"configure": ".*", "write": ".*", "read": ".*"}


def load() -> ModuleType:
    path = ROOT / "roles/rabbitmq/filter_plugins/rabbitmq_definitions.py"
    spec = importlib.util.spec_from_file_location("rabbitmq_definitions", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks for its module there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FILTERS = load()


def standard(**variables: Any) -> dict[str, Any]:
    return dict(evaluate("__rabbitmq_standard_objects", "rabbitmq", NODE | variables))


def wanted(own: Mapping[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    return dict(FILTERS.rabbitmq_merged(own or {}, standard(**variables)))


def refusals(own: Mapping[str, Any] | None = None, **variables: Any) -> list[str]:
    logins = evaluate("__rabbitmq_logins", "rabbitmq", NODE | variables)
    return list(FILTERS.rabbitmq_refusals(own or {}, standard(**variables), logins, loopback=False))


def difference(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    return dict(FILTERS.rabbitmq_difference(wanted, there))


def user(name: str, password: str, *tags: str) -> dict[str, Any]:
    """A user as a broker shows it."""
    return {
        "name": name,
        "password_hash": FILTERS.rabbitmq_password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": list(tags),
        "limits": {},
    }


def vhost(name: str, queue_type: str = "quorum", description: str = "", tags: tuple[str, ...] = ()) -> dict[str, Any]:
    """A vhost as a broker shows it: 3.10 says "undefined", and leaves it out of the metadata, where there is none."""
    metadata = {"description": description, "tags": list(tags)}
    if queue_type != "undefined":
        metadata["default_queue_type"] = queue_type
    return {"name": name, **metadata, "default_queue_type": queue_type, "metadata": metadata}


def broker() -> dict[str, Any]:
    """A broker on which everything standard is there already."""
    return {
        "vhosts": [vhost("/", description="Default virtual host")],
        "users": [
            user("admin", "zz-admin-zz", "administrator"),
            user("app", "zz-app-zz"),
            user("monitoring", "zz-monitoring-zz", "monitoring"),
        ],
        "permissions": [{"user": "admin", "vhost": "/", **ALL}, {"user": "app", "vhost": "/", **ALL}],
        "topic_permissions": [],
        "policies": [],
        "parameters": [],
        "global_parameters": [{"name": "internal_cluster_id", "value": "rabbitmq-cluster-id-1"}],
    }


NEW_BROKER = {
    "vhosts": [vhost("/", "classic", "Default virtual host")],
    "users": [user("guest", "guest", "administrator")],
    "permissions": [{"user": "guest", "vhost": "/", **ALL}],
}


# Passwords


def test_a_hash_is_salt_and_sha256_of_salt_and_password() -> None:
    raw = base64.b64decode(FILTERS.rabbitmq_password_hash("süß"))
    assert raw[4:] == hashlib.sha256(raw[:4] + "süß".encode()).digest()


def test_every_hash_has_a_salt_of_its_own() -> None:
    assert FILTERS.rabbitmq_password_hash("same") != FILTERS.rabbitmq_password_hash("same")


def test_the_example_of_rabbitmqs_documentation_matches() -> None:
    # "Passwords", "This is the algorithm": salt 908D C60A, password test12.
    assert FILTERS.rabbitmq_password_matches("test12", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
    assert not FILTERS.rabbitmq_password_matches("test13", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")


@pytest.mark.parametrize("stored", ["", "no base64!", "AAAA"])
def test_a_hash_that_is_none_matches_nothing(stored: str) -> None:
    assert not FILTERS.rabbitmq_password_matches("", stored)


def test_a_hash_of_another_algorithm_is_kept_if_it_is_known_and_matches() -> None:
    stored = base64.b64encode(b"salt" + hashlib.sha512(b"salt" + b"secret").digest()).decode()
    assert FILTERS.rabbitmq_password_matches("secret", stored, "rabbit_password_hashing_sha512")
    assert not FILTERS.rabbitmq_password_matches("secret", stored)
    assert not FILTERS.rabbitmq_password_matches("secret", stored, "of_somebody_else")


# What is wanted


def test_by_default_there_are_three_users_and_a_vhost_for_quorum_queues() -> None:
    objects = wanted()
    assert {entry["name"]: entry["tags"] for entry in objects["users"]} == {
        "admin": ["administrator"],
        "app": [],
        "monitoring": ["monitoring"],
    }
    assert objects["vhosts"] == [{"name": "/", "default_queue_type": "quorum"}]
    assert [entry["user"] for entry in objects["permissions"]] == ["admin", "app"]


def test_one_more_vhost_takes_one_line_and_gets_quorum_queues() -> None:
    (shop,) = difference(wanted({"vhosts": [{"name": "shop"}]}), broker())["import"]["vhosts"]
    assert shop["default_queue_type"] == "quorum"


@pytest.mark.parametrize("there", ["classic", "undefined"])
def test_a_vhost_that_is_only_named_keeps_its_queue_type(there: str) -> None:
    own = {"vhosts": [{"name": "shop"}]}
    present = broker() | {"vhosts": [*broker()["vhosts"], vhost("shop", there)]}
    assert difference(wanted(own), present)["changes"] == []


def test_an_object_that_is_standard_keeps_what_the_inventory_does_not_say() -> None:
    users = wanted({"users": [{"name": "app", "tags": ["policymaker"]}]})["users"]
    assert users[1] == {"name": "app", "password": "zz-app-zz", "tags": ["policymaker"]}


def test_without_standard_users_only_those_of_the_inventory_are_wanted() -> None:
    own = {"users": [{"name": "guest", "password": "guest"}]}
    assert [entry["name"] for entry in wanted(own, rabbitmq_standard_users=False)["users"]] == ["guest"]


# What differs


def test_nothing_differs_on_a_broker_that_has_it_all() -> None:
    assert difference(wanted(), broker()) == {"import": {}, "remove": [], "queue_types": [], "changes": []}


def test_a_new_broker_gets_everything_and_loses_guest() -> None:
    due = difference(wanted(), NEW_BROKER)
    assert due["changes"] == [
        "vhost /: differs in default_queue_type",
        "user admin: missing",
        "user app: missing",
        "user monitoring: missing",
        "permissions of admin in /: missing",
        "permissions of app in /: missing",
        "user guest: to be removed",
    ]
    assert due["remove"] == ["guest"]
    assert due["queue_types"] == [{"name": "/", "type": "quorum"}]


def test_importing_the_difference_leaves_none() -> None:
    own = {
        "vhosts": [{"name": "shop", "description": "the shop", "tags": ["a", "b"]}],
        "users": [{"name": "shop", "password": "s", "tags": "management, policymaker", "limits": {"max-channels": 5}}],
        "policies": [{"vhost": "shop", "name": "p", "pattern": ".*", "definition": {"max-length": 5}}],
        "parameters": [{"vhost": "shop", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 5}}],
        "global_parameters": [{"name": "mine", "value": {"a": [1]}}],
        "topic_permissions": [{"user": "shop", "vhost": "shop", "exchange": "amq.topic", "write": "a", "read": "b"}],
    }
    imported = difference(wanted(own), {})["import"]
    assert difference(wanted(own), imported)["changes"] == []


def test_what_is_imported_holds_hashes_and_no_password() -> None:
    imported = difference(wanted(), NEW_BROKER)["import"]
    assert "zz-" not in str(imported)
    assert all(FILTERS.rabbitmq_password_matches(f"zz-{u['name']}-zz", u["password_hash"]) for u in imported["users"])


def test_a_changed_password_changes_its_user_and_nothing_else() -> None:
    due = difference(wanted(rabbitmq_app_password="zz-new-zz"), broker())
    assert due["changes"] == ["user app: differs in password"]
    assert list(due["import"]) == ["users"]
    assert FILTERS.rabbitmq_password_matches("zz-new-zz", due["import"]["users"][0]["password_hash"])


def test_a_user_whose_tags_change_keeps_the_stored_hash() -> None:
    there = broker()
    due = difference(wanted({"users": [{"name": "app", "tags": ["policymaker"]}]}), there)
    assert due["changes"] == ["user app: differs in tags"]
    assert due["import"]["users"][0]["password_hash"] == there["users"][1]["password_hash"]


def test_the_order_of_tags_is_no_difference() -> None:
    there = {"users": [user("x", "s", "b", "a")]}
    assert not difference({"users": [{"name": "x", "password": "s", "tags": ["a", "b"]}]}, there)["changes"]


def test_limits_that_nobody_asked_for_are_left_alone() -> None:
    there = broker()
    there["users"][1]["limits"] = {"max-connections": 5}
    assert not difference(wanted(), there)["changes"]


def test_a_vhost_keeps_the_metadata_that_nobody_asked_to_change() -> None:
    there = broker() | {"vhosts": [vhost("/", "undefined", "Default virtual host", ("a",))]}
    due = difference(wanted(), there)
    assert due["changes"] == ["vhost /: differs in default_queue_type"]
    assert due["import"]["vhosts"][0]["metadata"] == {
        "description": "Default virtual host",
        "tags": ["a"],
        "default_queue_type": "quorum",
    }


def test_the_queue_type_is_read_beside_the_metadata_as_well_where_an_export_has_it() -> None:
    exported = {"name": "/", "default_queue_type": "quorum", "limits": [], "metadata": {"description": "", "tags": []}}
    assert not difference(wanted(), broker() | {"vhosts": [exported]})["changes"]


def test_objects_that_are_not_named_are_left_alone() -> None:
    there = broker()
    there["users"].append(user("somebody", "s"))
    there["vhosts"].append(vhost("else", "classic"))
    assert not difference(wanted(), there)["changes"]


def test_guest_stays_where_the_inventory_names_it() -> None:
    own = {"users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}]}
    due = difference(wanted(own, rabbitmq_standard_users=False), NEW_BROKER)
    assert due["remove"] == []
    assert due["changes"] == ["vhost /: differs in default_queue_type"]


def test_a_policy_without_priority_and_target_is_what_the_broker_makes_of_it() -> None:
    own = {"policies": [{"vhost": "/", "name": "p", "pattern": ".*", "definition": {"max-length": 5}}]}
    there = broker()
    there["policies"] = [own["policies"][0] | {"apply-to": "all", "priority": 0}]
    assert not difference(wanted(own), there)["changes"]
    there["policies"][0]["priority"] = 1
    assert difference(wanted(own), there)["changes"] == ["policy p in /: differs in priority"]


# What is refused


def test_the_standard_objects_are_accepted() -> None:
    assert refusals() == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"queues": []}, "queues is no kind of objects that this role knows; these are vhosts, users, "),
    "list": ({"users": {"name": "x"}}, "users must be a list of mappings"),
    "name": ({"users": [{"password": "s"}]}, "entry 1 of users needs name, as text"),
    "number": ({"vhosts": [{"name": 5}]}, "entry 1 of vhosts needs name, as text"),
    "unknown": (
        {"users": [{"name": "x", "passwrd": "zz-secret-zz"}]},
        "user x has passwrd, which is none of name, password, tags, limits",
    ),
    "hash": (
        {"users": [{"name": "x", "password_hash": "zz-secret-zz"}]},
        "user x has password_hash, which is none of name, password, tags, limits (give its password)",
    ),
    "twice": (
        {"users": [{"name": "x", "password": "zz-a-zz"}, {"name": "x", "password": "zz-b-zz"}]},
        "user x is named twice",
    ),
    "password": ({"users": [{"name": "x"}]}, "user x has no password"),
    "empty": ({"users": [{"name": "x", "password": ""}]}, "user x has an empty password"),
    "text": ({"users": [{"name": "x", "password": 12345}]}, "user x has a password that is no text; quote it"),
    "user": (
        {"permissions": [{"user": "nobody", "vhost": "/", **ALL}]},
        "permissions of nobody in /: the user nobody is not among the users",
    ),
    "vhost": (
        {"permissions": [{"user": "app", "vhost": "nowhere", **ALL}]},
        "permissions of app in nowhere: the vhost nowhere is not among the vhosts",
    ),
    "read": (
        {"permissions": [{"user": "monitoring", "vhost": "/", "configure": "", "write": ""}]},
        "permissions of monitoring in / has no read",
    ),
    "pattern": ({"policies": [{"vhost": "/", "name": "p", "definition": {"a": 1}}]}, "policy p in / has no pattern"),
    "definition": ({"policies": [{"vhost": "/", "name": "p", "pattern": ".*"}]}, "policy p in / has no definition"),
    "nothing": (
        {"policies": [{"vhost": "/", "name": "p", "pattern": ".*", "definition": {}}]},
        "policy p in / needs a definition that sets something",
    ),
    "value": (
        {"parameters": [{"vhost": "/", "component": "c", "name": "p"}]},
        "parameter p of c in / has no value",
    ),
    "login": (
        {"users": [{"name": "admin", "password": "zz-other-zz"}]},
        "user admin has another password than rabbitmq_admin_password says",
    ),
    "tag": (
        {"users": [{"name": "monitoring", "tags": ["policymaker"]}]},
        "user monitoring (rabbitmq_monitoring_user) needs the tag monitoring or administrator",
    ),
    "guest": (
        {"users": [{"name": "guest", "password": "guest"}]},
        "user guest has the password that everybody knows; that is for nodes that listen on 127.0.0.1 only",
    ),
}


@pytest.mark.parametrize(("own", "message"), REFUSED.values(), ids=REFUSED)
def test_an_object_that_cannot_be_is_refused_by_its_name_and_without_its_secrets(
    own: dict[str, Any], message: str
) -> None:
    (refusal,) = refusals(own)
    assert refusal.startswith(message)
    assert "zz-" not in refusal


def test_a_user_as_whom_we_log_in_has_to_be_named() -> None:
    own = {"users": [{"name": "root", "password": "s", "tags": ["administrator"]}]}
    names = {"rabbitmq_admin_user": "root", "rabbitmq_admin_password": "s", "rabbitmq_app_user": "root"}
    assert refusals(own, rabbitmq_standard_users=False, rabbitmq_app_password="s", **names) == [
        "rabbitmq_monitoring_user is monitoring, which is not among the users"
    ]


def test_two_standard_users_of_one_name_are_refused() -> None:
    assert refusals(rabbitmq_app_user="admin"), "one of them would silently lose its password and its tags"
