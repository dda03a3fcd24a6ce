"""Write docs/variables.md from the argument specs of the roles, so that what a variable means is said once.

With --check, only say whether it is up to date (exit code 1 if not).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
REFERENCE = PROJECT / "docs" / "variables.md"
ROLES = ("rabbitmq", "haproxy", "keepalived", "firewall", "service")

HEAD = """# Variables

Made by `make docs` from `roles/*/meta/argument_specs.yml`. Set them in the inventory; `inventory/local` shows how.
"""


def reference() -> str:
    """Return the text of docs/variables.md."""
    return "\n".join([HEAD, *(section(role) for role in ROLES)])


def section(role: str) -> str:
    """Return the table of one role's variables, in the order in which its spec has them."""
    spec = yaml.safe_load((PROJECT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"][
        "main"
    ]
    defaults = yaml.safe_load((PROJECT / "roles" / role / "defaults" / "main.yml").read_text())
    rows = [row(name, option, defaults.get(name, "")) for name, option in spec["options"].items()]
    table = ["| variable | type | default | meaning |", "|---|---|---|---|", *rows]
    return f"## {spec['short_description']} (role `{role}`)\n\n" + "\n".join(table) + "\n"


def row(name: str, option: dict[str, Any], default: object) -> str:
    """Return the line of one variable; a default that is an expression is told in its description."""
    text = option["description"]
    meaning = " ".join(text if isinstance(text, list) else [text])
    if "choices" in option:
        meaning += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    if "options" in option:
        meaning += " In each element: " + "; ".join(part(*item) for item in option["options"].items()) + "."
    shown = "required" if option.get("required") else "" if "{{" in str(default) else f"`{yaml_value(default)}`"
    return f"| `{name}` | {option['type']} | {shown} | {plain(meaning)} |"


def part(name: str, option: dict[str, Any]) -> str:
    """Return what one key of an element means, with its default."""
    shown = "required" if option.get("required") else f"`{yaml_value(option['default'])}`"
    return f"`{name}` ({shown}): {option['description'].rstrip('.')}"


def yaml_value(value: object) -> str:
    """Return a value as an inventory would write it."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def plain(text: str) -> str:
    """Return a description without Ansible's markup."""
    return re.sub(r"\b[VOC]\(([^)]*)\)", r"`\1`", text).replace("|", r"\|")


def main() -> int:
    """Write the file, or check it."""
    if "--check" not in sys.argv[1:]:
        REFERENCE.write_text(reference())
        return 0
    if REFERENCE.is_file() and REFERENCE.read_text() == reference():
        return 0
    print(f"{REFERENCE.relative_to(PROJECT)} is not what the argument specs say; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
