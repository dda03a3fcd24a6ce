"""The parts of docs/benchmarks.md: a run of one leaves those of the others as they are."""

from __future__ import annotations

import re
from enum import StrEnum


class Part(StrEnum):
    """A part of the benchmark; in this order in the document."""

    provisioning = "provisioning"
    failover = "failover"
    throughput = "throughput"


# What stands before the first mark is the first part, whose text begins with the title.
FIRST, *LATER = Part
TITLE = "# Benchmarks\n"
MARK = re.compile(rf"^<!-- ({'|'.join(LATER)}) -->$", re.MULTILINE)


def replaced(document: str, part: Part, text: str) -> str:
    """Return a document in which one part is another text."""
    before, *rest = MARK.split(document)
    sections: dict[str, str] = {FIRST: before if before.strip() else TITLE}
    sections |= dict(zip(rest[::2], rest[1::2], strict=True))
    sections[part] = text
    marked = [f"<!-- {name} -->\n{sections[name].strip()}\n" for name in LATER if name in sections]
    return "\n".join([f"{sections[FIRST].strip()}\n", *marked])
