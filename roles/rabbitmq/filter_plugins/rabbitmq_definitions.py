"""Filters over what lives inside a cluster: users, vhosts, permissions, policies, parameters.

Wanted objects have the shape of a definitions document (RabbitMQ documentation, "Definition Export and Import"), except
that a user has a password and no hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]
Objects = Mapping[str, Any]

SHA256 = "rabbit_password_hashing_sha256"
HASHES = {SHA256: "sha256", "rabbit_password_hashing_sha512": "sha512", "rabbit_password_hashing_md5": "md5"}
SALT = 4
TEXTS = ("password", "configure", "write", "read", "pattern")
# What a vhost holds in its metadata, where every version reads it; 3.10 and 4.0 ignore the last one beside the name.
METADATA = ("description", "tags", "default_queue_type")


@dataclass(frozen=True)
class Kind:
    """A kind of objects.

    Attributes:
        title: how a message names one, made of the fields of its key.
        key: the fields that tell one from another.
        required: the fields that it must have besides.
        optional: the fields that it may have, with what is wanted where one is missing; None: what the broker has.
    """

    title: str
    key: tuple[str, ...]
    required: tuple[str, ...] = ()
    optional: Mapping[str, Any] = field(default_factory=dict)

    def name(self, thing: Object) -> str:
        """Return what a message calls an object."""
        return self.title.format_map({part: thing.get(part) for part in self.key})

    def identity(self, thing: Object) -> tuple[Any, ...]:
        """Return what tells it from others of its kind."""
        return tuple(thing.get(part) for part in self.key)


# In the order in which they are told; the broker imports them in its own.
KINDS = {
    "vhosts": Kind(
        "vhost {name}",
        ("name",),
        optional={"description": None, "tags": None, "default_queue_type": None, "metadata": None},
    ),
    "users": Kind("user {name}", ("name",), ("password",), {"tags": [], "limits": None}),
    "permissions": Kind("permissions of {user} in {vhost}", ("user", "vhost"), ("configure", "write", "read")),
    "topic_permissions": Kind(
        "topic permissions of {user} on {exchange} in {vhost}", ("user", "vhost", "exchange"), ("write", "read")
    ),
    "policies": Kind(
        "policy {name} in {vhost}",
        ("vhost", "name"),
        ("pattern", "definition"),
        {"apply-to": "all", "priority": 0},
    ),
    "parameters": Kind("parameter {name} of {component} in {vhost}", ("vhost", "component", "name"), ("value",)),
    "global_parameters": Kind("global parameter {name}", ("name",), ("value",)),
}


def rabbitmq_merged(own: Objects, standard: Objects) -> dict[str, list[dict[str, Any]]]:
    """Put objects over others. One that both name has the fields of both; a missing field gets its default."""
    merged = {}
    for kind_name, kind in KINDS.items():
        by_identity: dict[tuple[Any, ...], dict[str, Any]] = {}
        for thing in [*(standard.get(kind_name) or []), *(own.get(kind_name) or [])]:
            by_identity.setdefault(kind.identity(thing), {}).update(thing)
        defaults = {name: value for name, value in kind.optional.items() if value is not None}
        if by_identity:
            merged[kind_name] = [defaults | thing for thing in by_identity.values()]
    return merged


def rabbitmq_refusals(own: Objects, standard: Objects, logins: Iterable[Object], loopback: bool) -> list[str]:
    """Return what is wrong with objects that somebody wants, a sentence each, without showing a secret.

    Args:
        own: the ones of the inventory.
        standard: those that they are put over.
        logins: the users as whom the project itself logs in: variable (without _user and _password), user, password,
            and tags, of which the user needs one.
        loopback: the broker can only be reached from its own machine.
    """
    shape = [*_shape_refusals(own)]
    # The rest can only be said of what has the right shape.
    if shape:
        return shape
    wanted = rabbitmq_merged(own, standard)
    return [
        *_field_refusals(wanted),
        *_reference_refusals(wanted),
        *_login_refusals(wanted, list(logins), loopback=loopback),
    ]


def _shape_refusals(own: Objects) -> Iterable[str]:
    for kind_name, things in own.items():
        kind = KINDS.get(kind_name)
        if kind is None:
            yield f"{kind_name} is no kind of objects that this role knows; these are {', '.join(KINDS)}"
            continue
        if not isinstance(things, (list, tuple)) or not all(isinstance(thing, Mapping) for thing in things):
            yield f"{kind_name} must be a list of mappings"
            continue
        known = (*kind.key, *kind.required, *kind.optional)
        seen = set()
        for number, thing in enumerate(things, start=1):
            unnamed = [part for part in kind.key if not _is_text(thing.get(part))]
            if unnamed:
                yield f"entry {number} of {kind_name} needs {' and '.join(unnamed)}, as text"
                continue
            if kind.identity(thing) in seen:
                yield f"{kind.name(thing)} is named twice"
            seen.add(kind.identity(thing))
            for unknown in [name for name in thing if name not in known]:
                hint = " (give its password)" if unknown == "password_hash" else ""
                yield f"{kind.name(thing)} has {unknown}, which is none of {', '.join(known)}{hint}"


def _field_refusals(wanted: Objects) -> Iterable[str]:
    for kind_name, kind in KINDS.items():
        for thing in wanted.get(kind_name, []):
            for name in kind.required:
                if thing.get(name) is None:
                    yield f"{kind.name(thing)} has no {name}"
                elif name in TEXTS and not isinstance(thing[name], str):
                    yield f"{kind.name(thing)} has a {name} that is no text; quote it"
            if thing.get("password") == "":
                yield f"{kind.name(thing)} has an empty password"
    for policy in wanted.get("policies", []):
        if "definition" in policy and not (isinstance(policy["definition"], Mapping) and policy["definition"]):
            yield f"{KINDS['policies'].name(policy)} needs a definition that sets something"


def _reference_refusals(wanted: Objects) -> Iterable[str]:
    named = {
        "user": {user["name"] for user in wanted.get("users", [])},
        "vhost": {vhost["name"] for vhost in wanted.get("vhosts", [])},
    }
    for kind_name, kind in KINDS.items():
        for part in [part for part in kind.key if part in named]:
            for thing in wanted.get(kind_name, []):
                if thing[part] not in named[part]:
                    yield f"{kind.name(thing)}: the {part} {thing[part]} is not among the {part}s"


def _login_refusals(wanted: Objects, logins: list[Object], *, loopback: bool) -> Iterable[str]:
    users = {user["name"]: user for user in wanted.get("users", [])}
    for login in logins:
        variable, user = login["variable"], users.get(login["user"])
        if user is None:
            yield f"{variable}_user is {login['user']}, which is not among the users"
            continue
        if user.get("password") not in (None, login["password"]):
            yield f"user {user['name']} has another password than {variable}_password says"
        if login["tags"] and not set(login["tags"]) & set(_tags(user.get("tags"))):
            yield f"user {user['name']} ({variable}_user) needs the tag {' or '.join(login['tags'])}"
    if not loopback and users.get("guest", {}).get("password") == "guest":
        yield "user guest has the password that everybody knows; that is for nodes that listen on 127.0.0.1 only"


def rabbitmq_difference(wanted: Objects, there: Objects) -> dict[str, Any]:
    """Return what has to happen so that wanted objects are there.

    Objects that are there and not wanted are left alone, except guest, whose password everybody knows.

    Args:
        wanted: objects as rabbitmq_merged returns them.
        there: those of the broker, as its API or its export shows them.

    Returns:
        import: a definitions document of those that are missing or differ, complete with what else they hold;
        remove: names of users to remove;
        queue_types: vhosts that are there with another default queue type, and the one that they should have;
        changes: a line for each, which shows no value.
    """
    due: dict[str, list[dict[str, Any]]] = {}
    changes, queue_types = [], []
    for kind_name, kind in KINDS.items():
        present = {kind.identity(thing): thing for thing in there.get(kind_name) or []}
        for thing in wanted.get(kind_name) or []:
            old = present.get(kind.identity(thing))
            new = _complete(kind_name, thing, old)
            differing = [] if old is None else _differing(kind_name, new, old)
            if old is None or differing:
                due.setdefault(kind_name, []).append(new)
                what = "missing" if old is None else f"differs in {', '.join(differing)}"
                changes.append(f"{kind.name(thing)}: {what}")
            if kind_name == "vhosts" and "default_queue_type" in differing:
                queue_types.append({"name": new["name"], "type": new["default_queue_type"]})
    is_wanted = any(user["name"] == "guest" for user in wanted.get("users") or [])
    remove = [] if is_wanted else [user["name"] for user in there.get("users") or [] if user["name"] == "guest"]
    changes += [f"user {name}: to be removed" for name in remove]
    return {"import": due, "remove": remove, "queue_types": queue_types, "changes": changes}


def _complete(kind_name: str, wanted: Object, there: Object | None) -> dict[str, Any]:
    """Return an object as it should be stored."""
    if kind_name == "vhosts":
        given = {name: wanted[name] for name in METADATA if wanted.get(name) is not None}
        # Of one that is there nothing is changed that was not asked for: clients may declare classic queues in it.
        before = {"default_queue_type": "quorum"} if there is None else _metadata(there)
        metadata = {"description": "", "tags": []} | before | dict(wanted.get("metadata") or {}) | given
        return {"name": wanted["name"], "metadata": metadata} | {k: metadata[k] for k in METADATA if k in metadata}
    if kind_name == "users":
        user = {name: value for name, value in wanted.items() if name != "password"}
        there = there or {}
        algorithm, stored = there.get("hashing_algorithm", SHA256), there.get("password_hash", "")
        kept = rabbitmq_password_matches(wanted["password"], stored, algorithm)
        return user | {
            "tags": _tags(wanted.get("tags")),
            "password_hash": stored if kept else rabbitmq_password_hash(wanted["password"]),
            "hashing_algorithm": algorithm if kept else SHA256,
        }
    return dict(wanted)


def _differing(kind_name: str, new: Object, old: Object) -> list[str]:
    if kind_name == "vhosts":
        new, old = new["metadata"], {"description": "", "tags": []} | _metadata(old)
    if kind_name == "users":
        new = {("password" if name == "password_hash" else name): value for name, value in new.items()}
        old = {**old, "password": old.get("password_hash")}
        # A new one comes with the new hash.
        new.pop("hashing_algorithm")
    return [name for name, value in new.items() if _comparable(name, value) != _comparable(name, old.get(name))]


def _comparable(name: str, value: Any) -> Any:
    return set(_tags(value)) if name == "tags" else value


def _metadata(vhost: Object) -> dict[str, Any]:
    """Return the metadata of a vhost, which versions show in different places; "undefined" is Erlang for nothing."""
    beside = {name: vhost[name] for name in METADATA if vhost.get(name) not in (None, "undefined")}
    inside = {name: value for name, value in (vhost.get("metadata") or {}).items() if value not in (None, "undefined")}
    return beside | inside


def _tags(tags: Any) -> list[str]:
    """Return tags as a list; a definitions document may have them in one string, with commas."""
    return [tag.strip() for tag in tags.split(",") if tag.strip()] if isinstance(tags, str) else list(tags or [])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def rabbitmq_password_hash(password: str) -> str:
    """Hash a password with a new salt (RabbitMQ documentation, "Passwords": SHA-256 over salt and UTF-8 password)."""
    return _hashed(password, secrets.token_bytes(SALT), SHA256)


def rabbitmq_password_matches(password: str, stored: str, algorithm: str = SHA256) -> bool:
    """Return whether a stored hash is that of a password; never for an algorithm that we do not know."""
    try:
        salt = base64.b64decode(stored, validate=True)[:SALT]
    except (binascii.Error, ValueError):
        return False
    return algorithm in HASHES and secrets.compare_digest(_hashed(password, salt, algorithm), stored)


def _hashed(password: str, salt: bytes, algorithm: str) -> str:
    return base64.b64encode(salt + hashlib.new(HASHES[algorithm], salt + password.encode()).digest()).decode()


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            each.__name__: each
            for each in (
                rabbitmq_merged,
                rabbitmq_refusals,
                rabbitmq_difference,
                rabbitmq_password_hash,
                rabbitmq_password_matches,
            )
        }
