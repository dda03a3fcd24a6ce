"""Renders our templates as the template module does, in process: milliseconds per file and nothing written.

The engine, the variables' precedence and the inventory are Ansible's own; only the copying of the result is left out.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs, init_plugin_loader
from ansible.template import Templar, generate_ansible_template_vars, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from jinja2 import Environment

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates"
ROLES = tuple(sorted(path.name for path in (ROOT / "roles").iterdir()))

Variables = Mapping[str, Any]


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain Python data, expressions left as they are; None when there is no such file."""
    return yaml.safe_load(path.read_text()) if path.exists() else None


def read_trusted(path: Path) -> Any:
    """Read a YAML file as Ansible does its own content: the expressions in it will be evaluated."""
    return _loader().load_from_file(str(path), trusted_as_template=True)


def role_variables(role: str, inventory: Variables) -> dict[str, Any]:
    """Put an inventory's variables over the role's defaults and under its vars, as Ansible does."""
    return _role_file(role, "defaults") | dict(inventory) | _role_file(role, "vars")


def render(template: str, role: str, inventory: Variables) -> str:
    """Return what the template module would write for `templates/TEMPLATE.j2` in this role."""
    path = TEMPLATES / f"{template}.j2"
    variables = role_variables(role, inventory)
    variables |= generate_ansible_template_vars(path.name, str(path))
    text = trust_as_template(_loader().get_text_file_contents(str(path)))
    # The module's own defaults; a "#jinja2:" header in the template overrides them.
    overrides = {"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"}
    return str(_templar(variables).template(text, escape_backslashes=False, overrides=overrides))


def evaluate(expression: str, role: str, inventory: Variables) -> Any:
    """Return the value of a Jinja expression over the variables of a role."""
    return _templar(role_variables(role, inventory)).evaluate_expression(trust_as_template(expression))


def inventory_variables(
    host: str,
    *,
    facts: Variables | None = None,
    inventory: Path = ROOT / "inventory/local",
    overlays: Iterable[Path] = (),
) -> dict[str, Any]:
    """Return what Ansible knows of a host: its inventory, playbooks/group_vars, and `facts` set on every host.

    Overlays are further sources, which win over the first. Raises KeyError when the inventory has no such host.
    """
    _loader()
    loader = DataLoader()
    # Beside the playbooks, Ansible finds playbooks/group_vars.
    loader.set_basedir(str(ROOT / "playbooks"))
    hosts = InventoryManager(loader=loader, sources=[str(source) for source in (inventory, *overlays)])
    manager = VariableManager(loader=loader, inventory=hosts)
    HostVars(hosts, manager, loader)
    for each in hosts.get_hosts():
        manager.set_nonpersistent_facts(each.name, dict(facts or {}))
    if host not in hosts.hosts:
        raise KeyError(f"{inventory} has no host {host}")
    return dict(manager.get_vars(host=hosts.hosts[host]))


def setting_lines(text: str) -> Iterable[str]:
    """Yield the lines of a rendered file that are neither blank nor a comment, without their indentation."""
    return (line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


@cache
def _loader() -> DataLoader:
    # Where Ansible finds filters of collections, such as community.general.version_sort. Once for each process.
    init_plugin_loader()
    # And the filters of our roles, which Ansible finds when it loads a role.
    for role in ROLES:
        add_all_plugin_dirs(str(ROOT / "roles" / role))
    _compile_each_text_once()
    return DataLoader()


def _compile_each_text_once() -> None:
    """Remember what Jinja has compiled, which is most of the time that a rendering takes.

    Ansible compiles anew for every variable and task. The key holds what Ansible varies here for one text.
    """
    compile_anew = Environment.compile
    compiled: dict[tuple[str, bool, bool], Any] = {}

    def compile_once(self: Environment, source: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(source, str):
            return compile_anew(self, source, *args, **kwargs)
        key = (str(source), self.trim_blocks, self.lstrip_blocks)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, *args, **kwargs)
        return compiled[key]

    Environment.compile = compile_once  # type: ignore[method-assign]


@cache
def _role_file(role: str, part: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / part / "main.yml"
    return dict(read_trusted(path) or {}) if path.exists() else {}


def _templar(variables: dict[str, Any]) -> Templar:
    return Templar(loader=_loader(), variables=variables)
