"""The parts of the report's page that are ours: pytest-html makes the page, and puts them where the style says."""

from __future__ import annotations

import jinja2

from smoke.deployment import PROJECT
from smoke.plot import draw
from smoke.report import Report, Stream
from smoke.timeline import close_up

TEMPLATES = PROJECT / "templates"
STYLE = TEMPLATES / "report.css"


def overview(report: Report) -> str:
    """Return the sentence about the run and the table of what clients felt, as HTML."""
    return _part("overview", report)


def faults(report: Report) -> str:
    """Return a section with a timeline for each stream, as HTML."""
    return _part("faults", report)


def surroundings(report: Report) -> str:
    """Return versions and settings, as HTML."""
    return _part("surroundings", report)


def _part(name: str, report: Report) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plots"] = _plots
    macro = getattr(environment.get_template("report.html.j2").module, name)
    return str(macro(report))


def _plots(stream: Stream) -> list[tuple[str, str]]:
    """Return captions and drawings, as SVG."""
    whole = stream.timeline()
    drawings = [("The whole stream", draw(whole))]
    if window := close_up(whole):
        drawings.append(("The longest gap, message by message", draw(whole, window)))
    return drawings
