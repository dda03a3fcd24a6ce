"""Draws a timeline as an SVG that lives inside a page: its colours are the page's, its text is text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoke.timeline import Lane, Span, Timeline, rates

# The page has these as CSS variables (--ink, ...), one set for light and one for dark; matplotlib wants colours that it
# knows, and writes them into the SVG where they can be found again.
COLOURS = {
    "ink": "#000001",
    "faint": "#000002",
    "published": "#000003",
    "confirmed": "#000004",
    "delivered": "#000005",
    "gap": "#000006",
    "up": "#000007",
    "down": "#000008",
    "other": "#000009",
    "action": "#00000a",
    "node-0": "#000010",
    "node-1": "#000011",
    "node-2": "#000012",
    "node-3": "#000013",
    "node-4": "#000014",
}
# In inches, at 72 points: as wide as the page.
WIDTH = 15.5
RATES = 1.7
LANE = 0.24
MARGIN = 0.5
# Where the axes begin and end, as parts of the width: names of lanes to the left, nothing to the right.
LEFT, RIGHT = 0.105, 0.985
# A text needs so much room inside a bar, as a part of the width of the window for each character.
CHARACTER = 0.0052
# Lines of captions in the upper part.
CAPTIONS = 10
# More messages than this in a window are drawn as rates, not one by one.
SINGLE = 1500


def draw(timeline: Timeline, window: Span | None = None) -> str:
    """Return an <svg> of a timeline, or of a window of it in which each message is seen.

    Seconds count from Timeline.zero.
    """
    shown = window or Span(timeline.begin, timeline.end)
    zero = timeline.zero
    lanes = [timeline.actions, *timeline.clients, *timeline.servers]
    with _style():
        height = RATES + LANE * len(lanes) + MARGIN + 0.25
        figure = Figure(figsize=(WIDTH, height))
        figure.patch.set_alpha(0)
        bottom = MARGIN / height
        split = (MARGIN + LANE * len(lanes)) / height
        messages = figure.add_axes((LEFT, split + 0.03, RIGHT - LEFT, 1 - split - 0.03 - 0.08))
        states = figure.add_axes((LEFT, bottom, RIGHT - LEFT, split - bottom), sharex=messages)
        _messages(messages, timeline, shown)
        _lanes(states, lanes, shown, zero, _nodes(timeline))
        for axes in (messages, states):
            axes.patch.set_alpha(0)
            for gap in timeline.gaps:
                axes.axvspan(gap.begin - zero, gap.end - zero, color=COLOURS["gap"], alpha=0.22, linewidth=0)
            for mark in timeline.marks:
                axes.axvline(mark.at - zero, color=COLOURS["ink"], linewidth=1, linestyle=(0, (4, 3)))
        _captions(messages, timeline, shown)
        messages.set_xlim(shown.begin - zero, shown.end - zero)
        since = "the suite first touched the deployment" if timeline.actions.spans else "the first message"
        states.set_xlabel(f"seconds since {since}")
        output = io.StringIO()
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return _inline(output.getvalue())


def _captions(axes: Axes, timeline: Timeline, shown: Span) -> None:
    """Say at each mark what it is, on the first line that has room; one without says it in the lane of actions only."""
    room = CHARACTER / (RIGHT - LEFT) * (shown.end - shown.begin)
    lines: list[list[Span]] = [[] for _ in range(CAPTIONS)]
    for mark in timeline.marks:
        if not shown.begin <= mark.at <= shown.end:
            continue
        late = mark.at > (shown.begin + shown.end) / 2
        width = len(mark.text) * room
        span = Span(mark.at - width, mark.at) if late else Span(mark.at, mark.at + width)
        free = (number for number, taken in enumerate(lines) if not any(span.overlaps(other) for other in taken))
        line = next(free, None)
        if line is None:
            continue
        lines[line].append(span)
        axes.annotate(
            mark.text,
            (mark.at - timeline.zero, 1),
            xytext=(-4 if late else 4, -3 - 10 * line),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if late else "left",
            va="top",
            fontsize=8,
        )


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": COLOURS["ink"],
            "axes.edgecolor": COLOURS["faint"],
            "axes.labelcolor": COLOURS["ink"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": COLOURS["ink"],
            "ytick.color": COLOURS["ink"],
            "path.simplify": False,
        }
    )


def _messages(axes: Axes, timeline: Timeline, shown: Span) -> None:
    zero = timeline.zero
    kinds = {"published": timeline.published, "confirmed": timeline.confirmed, "delivered": timeline.delivered}
    inside = {name: [at for at in times if shown.begin <= at <= shown.end] for name, times in kinds.items()}
    whole = shown.begin <= timeline.begin and shown.end >= timeline.end
    if not whole and max(map(len, inside.values())) <= SINGLE:
        for row, (name, times) in enumerate(inside.items()):
            # One line with interruptions: a tick of its own for each message makes the page several times as large.
            ticks = [(at - zero, y) for at in times for y in (-row - 0.36, -row + 0.36, math.nan)]
            axes.plot([x for x, _ in ticks], [y for _, y in ticks], color=COLOURS[name], linewidth=0.9)
        axes.set_yticks([0, -1, -2], labels=list(kinds))
        axes.set_ylim(-2.5, 0.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    else:
        _rates(axes, timeline, inside, shown, timeline.bucket() if whole else shown.seconds / 150)
    axes.tick_params(axis="x", labelbottom=False)
    _label_gap(axes, timeline, shown)


def _rates(axes: Axes, timeline: Timeline, kinds: dict[str, list[float]], shown: Span, bucket: float) -> None:
    zero = timeline.zero
    counted = {name: rates(kinds[name], shown.begin, shown.end, bucket) for name in ("delivered", "published")}
    edges = [shown.begin - zero + bucket * number for number in range(len(counted["published"]) + 1)]
    axes.stairs(counted["delivered"], edges, fill=True, color=COLOURS["delivered"], alpha=0.45, label="delivered")
    axes.stairs(
        counted["published"], edges, color=COLOURS["published"], linewidth=1.1, label="published", baseline=None
    )
    # What was held up arrives at once: such a peak would press everything else to the floor.
    peak = max(*counted["delivered"], *counted["published"])
    top = min(peak, 2.5 * timeline.rate) * 1.12
    # Where nothing flowed there is nothing to be seen, but the marks.
    axes.set_ylim(0, top or timeline.rate)
    for rate, at in zip(counted["delivered"], edges, strict=False):
        if rate > top and rate == peak:
            # Below the captions of the marks.
            axes.annotate(f"↑ {rate:.0f}/s", (at + bucket, 0.6), xycoords=("data", "axes fraction"), fontsize=8)
    axes.set_ylabel("messages / s")
    axes.locator_params(axis="y", nbins=4)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0)


def _label_gap(axes: Axes, timeline: Timeline, shown: Span) -> None:
    gap = timeline.longest_gap
    if gap is not None and shown.begin <= gap.begin and gap.end <= shown.end:
        middle = (gap.begin + gap.end) / 2 - timeline.zero
        axes.annotate(
            f"{gap.seconds:.2f} s",
            (middle, 1.01),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            color=COLOURS["gap"],
        )


def _lanes(axes: Axes, lanes: Sequence[Lane], shown: Span, zero: float, nodes: Sequence[str]) -> None:
    for row, lane in enumerate(lanes):
        for span in lane.spans:
            begin, end = max(span.begin, shown.begin), min(span.end, shown.end)
            if begin >= end:
                continue
            colour = _colour(span.text, nodes, action=row == 0)
            quiet = colour == "up"
            axes.barh(
                -row,
                end - begin,
                left=begin - zero,
                height=0.3 if quiet else 0.76,
                color=COLOURS[colour],
                alpha=0.55 if quiet else 0.85,
                linewidth=0,
            )
            room = int((end - begin) / shown.seconds / CHARACTER)
            if not quiet and (text := _fit(span.text, room)):
                axes.text((begin + end) / 2 - zero, -row, text, ha="center", va="center_baseline", fontsize=8)
    axes.set_yticks([-row for row in range(len(lanes))], labels=[lane.name for lane in lanes])
    axes.set_ylim(-len(lanes) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _fit(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room >= 5 else ""


def _nodes(timeline: Timeline) -> list[str]:
    return sorted({span.text for lane in timeline.clients for span in lane.spans} - {"?"})


def _colour(text: str, nodes: Sequence[str], *, action: bool) -> str:
    if action:
        return "action"
    if text in nodes:
        return f"node-{nodes.index(text) % 5}"
    return {"UP": "up", "DOWN": "down"}.get(text, "other")


def _inline(svg: str) -> str:
    svg = svg[svg.index("<svg") :]
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    # Names of groups would be there once for every plot of the page, and nothing refers to them.
    svg = re.sub(r' id="[a-zA-Z.]+_\d+"', "", svg)
    # As wide as the page lets it be; the height follows from the viewBox.
    root, rest = svg.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", root) + ">" + rest
