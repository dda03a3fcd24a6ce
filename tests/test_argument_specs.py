import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.rendering import ROLES, ROOT, read_yaml

SPECS: dict[str, dict[str, Any]] = {
    role: read_yaml(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"] for role in ROLES
}
DEFAULTS: dict[str, dict[str, Any]] = {role: read_yaml(ROOT / f"roles/{role}/defaults/main.yml") for role in ROLES}
# Every option of a role with its attributes, whichever entry point it belongs to.
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    (role, name): option
    for role, entry_points in SPECS.items()
    for entry_point in entry_points.values()
    for name, option in entry_point["options"].items()
}


def walk(options: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, option in options.items():
        yield f"{path}{name}", option
        yield from walk(option.get("options", {}), f"{path}{name}.")


def of(role: str) -> dict[str, dict[str, Any]]:
    return {name: option for (owner, name), option in OPTIONS.items() if owner == role}


def is_expression(value: Any) -> bool:
    return "{{" in str(value)


def refusals(options: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What Ansible says of these values when it calls the role."""
    return list(ArgumentSpecValidator(options).validate(values, validate_role_argument_spec=True).error_messages)


def with_attribute(attribute: str, *values: Any) -> list[Any]:
    return [
        pytest.param(role, name, id=name)
        for (role, name), option in OPTIONS.items()
        if attribute in option and (not values or option[attribute] in values)
    ]


def good_value(option: dict[str, Any]) -> Any:
    by_type: dict[str, Any] = {"str": "word", "path": "/there", "int": 1, "float": 0.5, "bool": True, "dict": {}}
    if option["type"] == "list":
        return [good_value(option | {"type": option["elements"]})]
    if "options" in option:
        return {name: good_value(inner) for name, inner in option["options"].items()}
    return option["choices"][0] if "choices" in option else by_type[option["type"]]


def required(role: str) -> dict[str, Any]:
    return {name: good_value(option) for name, option in of(role).items() if option.get("required")}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified(role: str) -> None:
    assert not set(DEFAULTS[role]) - set(of(role)), "describe it in meta/argument_specs.yml"


@pytest.mark.parametrize("role", ROLES)
def test_every_option_that_may_be_left_out_has_a_default(role: str) -> None:
    optional = {name for name, option in of(role).items() if not option.get("required")}
    assert optional == set(DEFAULTS[role]), "defaults/main.yml and meta/argument_specs.yml name different options"


@pytest.mark.parametrize("role", ROLES)
def test_what_is_required_has_no_default(role: str) -> None:
    assert not set(required(role)) & set(DEFAULTS[role])


@pytest.mark.parametrize("role", ROLES)
def test_the_specified_default_is_the_real_one(role: str) -> None:
    real = {name: value for name, value in DEFAULTS[role].items() if not is_expression(value)}
    specified = {name: option["default"] for name, option in of(role).items() if "default" in option}
    assert specified == real, (
        "an expression has no place in the specification; everything else has the same value in both"
    )


@pytest.mark.parametrize("role", ROLES)
def test_every_default_passes_its_own_specification(role: str) -> None:
    plain = {name: value for name, value in DEFAULTS[role].items() if not is_expression(value)}
    assert not refusals(of(role), required(role) | plain)


@pytest.mark.parametrize("role", ROLES)
def test_every_name_carries_the_prefix_of_its_role(role: str) -> None:
    names = set(of(role)) | set(DEFAULTS[role]) | set(read_yaml(ROOT / f"roles/{role}/vars/main.yml") or {})
    assert not [name for name in names if not name.startswith((f"{role}_", f"__{role}_"))]


@pytest.mark.parametrize("role", ROLES)
def test_everything_is_described(role: str) -> None:
    assert not [name for name, entry_point in SPECS[role].items() if not entry_point.get("short_description")]
    assert not [name for name, option in walk(of(role)) if not option.get("description")]


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_type(role: str) -> None:
    assert not [name for name, option in walk(of(role)) if "type" not in option]


def calls() -> Iterator[tuple[str, str, str]]:
    """Yield every entry point that a playbook or another role uses: where, role, entry point."""
    for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]:
        for role, entry_point in included_roles(read_yaml(path)):
            verbs = {entry_point}
            # One task for several verbs: those that the tasks beside it give, or one of two.
            if given := re.fullmatch(r"{{ (\w+) }}", entry_point):
                verbs = set(values_beside(path, given[1]))
            elif either := re.fullmatch(r"{{ '(\w+)' if .* else '(\w+)' }}", entry_point):
                verbs = set(either.groups())
            yield from ((str(path.relative_to(ROOT)), role, verb) for verb in verbs)


def values_beside(path: Path, variable: str) -> list[str]:
    return [
        task["vars"][variable]
        for file in path.parent.glob("*.yml")
        for task in read_yaml(file) or []
        if variable in task.get("vars", {})
    ]


def included_roles(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, list):
        for item in node:
            yield from included_roles(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
                yield value["name"], value.get("tasks_from", "main")
            elif key == "roles":
                yield from ((role if isinstance(role, str) else role["role"], "main") for role in value)
            else:
                yield from included_roles(value)


def test_every_entry_point_that_is_called_is_specified() -> None:
    unspecified = [call for call in calls() if call[2] not in SPECS[call[1]]]
    assert not unspecified, "specify (file, role, entry point) in meta/argument_specs.yml of the role"


def test_the_search_for_calls_finds_those_of_playbooks_and_roles() -> None:
    assert ("playbooks/preflight.yml", "rabbitmq", "validate") in set(calls())
    assert ("roles/haproxy/tasks/preflight.yml", "service", "ports") in set(calls())
    assert {call[2] for call in calls() if call[0] == "roles/haproxy/tasks/service.yml"} == {"define", "inspected"}
    assert ("playbooks/haproxy.yml", "keepalived", "destroy") in set(calls())


@pytest.mark.parametrize("role", ROLES)
def test_every_specified_entry_point_is_there(role: str) -> None:
    missing = [
        name for name in SPECS[role] if name != "main" and not (ROOT / f"roles/{role}/tasks/{name}.yml").exists()
    ]
    assert not missing, f"roles/{role}/tasks has no file for these"


@pytest.mark.parametrize("role", [role for role in ROLES if not (ROOT / f"roles/{role}/tasks/main.yml").exists()])
def test_a_role_without_a_main_is_never_called_without_saying_which_verb(role: str) -> None:
    assert not [call for call in calls() if call[1:] == (role, "main")]


@pytest.mark.parametrize(("role", "name"), with_attribute("choices"))
def test_a_choice_that_is_none_is_refused_by_name(role: str, name: str) -> None:
    (message,) = refusals(of(role), required(role) | {name: "nonsense"})
    assert f"value of {name} must be one of: {', '.join(map(str, OPTIONS[role, name]['choices']))}" in message


@pytest.mark.parametrize(("role", "name"), with_attribute("type", "int", "float", "bool"))
def test_a_word_instead_of_a_number_or_a_switch_is_refused_by_name(role: str, name: str) -> None:
    (message,) = refusals(of(role), required(role) | {name: "nonsense"})
    assert f"argument '{name}' is of type str and we were unable to convert to {OPTIONS[role, name]['type']}" in message


@pytest.mark.parametrize(("role", "name"), with_attribute("type", "dict"))
def test_a_word_instead_of_a_mapping_is_refused_by_name(role: str, name: str) -> None:
    (message,) = refusals(of(role), required(role) | {name: "nonsense"})
    assert f"argument '{name}' is of type str and we were unable to convert to dict" in message


@pytest.mark.parametrize(("role", "name"), with_attribute("required", True))
def test_a_required_option_that_is_missing_is_refused_by_name(role: str, name: str) -> None:
    values = {other: value for other, value in required(role).items() if other != name}
    assert refusals(of(role), values) == [f"missing required arguments: {name}"]


@pytest.mark.parametrize(
    ("role", "name", "inner"),
    [
        pytest.param(role, name, inner, id=f"{name}.{inner}")
        for (role, name), option in OPTIONS.items()
        for inner, inner_option in option.get("options", {}).items()
        if inner_option.get("required")
    ],
)
def test_a_required_part_of_an_element_is_refused_by_name(role: str, name: str, inner: str) -> None:
    element = {other: value for other, value in good_value(OPTIONS[role, name])[0].items() if other != inner}
    assert refusals(of(role), required(role) | {name: [element]}) == [
        f"missing required arguments: {inner} found in {name}"
    ]


@pytest.mark.parametrize("link", [*(f"roles/{role}/templates" for role in ROLES), "playbooks/templates"])
def test_templates_are_one_directory(link: str) -> None:
    path = ROOT / link
    assert path.is_symlink(), f"{link} must be a relative link to templates/"
    assert not path.readlink().is_absolute()
    assert path.resolve() == ROOT / "templates"
