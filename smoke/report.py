"""What a run amounts to, for people and for programs: its tests, their streams, figures against gates, surroundings."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from smoke.environment import Groups
from smoke.history import Kind
from smoke.journal import Recording
from smoke.judge import Verdict, judge
from smoke.timeline import Timeline, timeline


class Record(Protocol):
    """What the fixture `record` gives."""

    def __call__(self, verdict: Verdict, gate: float | None = None) -> None:
        """Keep a verdict; the gate is the longest silence that is promised, in seconds."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of a test that has ended.

    Attributes:
        recording: what was recorded.
        file: where the history is kept, relative to the report.
        verdict: of the test, or ours over the whole history if the test did not get so far.
        judged: the test itself asked for the verdict.
    """

    recording: Recording
    file: str
    verdict: Verdict
    judged: bool

    @property
    def longest(self) -> float:
        """The longest silence that a client felt, of deliveries or confirms, in seconds."""
        return max(self.verdict.delivery_gap.seconds, self.verdict.confirm_gap.seconds)

    @property
    def within(self) -> bool | None:
        """Whether the promise was kept; None if there was none."""
        return None if self.recording.gate is None else self.longest <= self.recording.gate

    def timeline(self) -> Timeline:
        """Read the timeline of the stream."""
        recording = self.recording
        return timeline(
            recording.history.events(), rate=recording.rate, until=recording.until or None, names=recording.names
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything but the messages; times are seconds since the first event."""
        events = self.recording.history.events()
        zero = min((event.at for event in events), default=0.0)
        return {
            "queue_type": str(self.recording.queue_type),
            "rate": self.recording.rate,
            "gate": self.recording.gate,
            "longest_gap": round(self.longest, 3),
            "within_gate": self.within,
            "ok": self.verdict.ok,
            "judged_by_the_test": self.judged,
            "kept": self.recording.kept,
            "sentence": self.verdict.sentence(),
            "figures": asdict(self.verdict),
            "zero": zero,
            "history": self.file,
            "events": [
                {
                    "at": round(event.at - zero, 3),
                    "kind": str(event.kind),
                    "who": event.client,
                    "where": event.where,
                    "detail": event.detail,
                }
                for event in sorted(events, key=lambda event: event.at)
                if event.kind in _TOLD
            ],
        }


# Kinds of events of which there are few.
_TOLD = {
    *(Kind.ready, Kind.lost, Kind.cancelled, Kind.located, Kind.server),
    *(Kind.fault, Kind.healed, Kind.action, Kind.done, Kind.stalled),
}


# Outcomes of which people want to know why.
FAILED = ("failed", "interrupted")


def sentence(nodeid: str) -> str:
    """Return what people read for pytest's name of a test: words, and the variant in brackets."""
    return nodeid.rpartition("::")[2].removeprefix("test_").replace("_", " ").replace("[", " (").replace("]", ")")


@dataclass(slots=True)
class Case:
    """A test.

    Attributes:
        nodeid: pytest's name for it.
        outcome: passed, failed, skipped, or interrupted: somebody ended the run before the test had ended.
        seconds: how long it took, with its fixtures.
        why: what went wrong in a line, or why it was skipped.
        remarks: what its figures do not say.
        streams: in the order in which they began.
    """

    nodeid: str
    outcome: str = "interrupted"
    seconds: float = 0.0
    why: str = ""
    remarks: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name as a sentence."""
        return sentence(self.nodeid)

    @property
    def slug(self) -> str:
        """Its name for files and links."""
        return re.sub(r"\W+", "-", self.name).strip("-")

    def word(self, stream: Stream) -> str:
        """Say in a word or two what came out for one of its streams: "ok", or what was worst."""
        if not stream.judged:
            # What is missing had no time to arrive: the queue was removed as the test failed.
            return self.outcome
        if not stream.verdict.ok:
            return "messages lost" if stream.verdict.lost else "messages wrong"
        if stream.within is False:
            return "too long"
        return self.outcome if self.outcome in FAILED else "ok"

    def keep(self, recordings: list[Recording], directory: Path) -> None:
        """Judge the streams that the test did not, and store all histories in a directory.

        Raises:
            OSError: a history cannot be written.
        """
        for number, recording in enumerate(recordings, start=1):
            suffix = f"-{number}" if len(recordings) > 1 else ""
            file = directory / f"{self.slug}{suffix}.jsonl.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            recording.history.save(file)
            verdict = recording.verdict or judge(recording.history.events())
            self.streams.append(
                Stream(recording, f"{directory.name}/{file.name}", verdict, recording.verdict is not None)
            )


@dataclass(slots=True)
class Report:
    """A run.

    Attributes:
        began: by the clock on the wall.
        run: how it was asked for.
        tests: in the order in which they ran.
        seconds: how long it took.
        versions: of what ran.
        settings: of the balancers and the clients.
    """

    began: datetime
    run: dict[str, str]
    tests: list[Case] = field(default_factory=list)
    seconds: float = 0.0
    versions: Groups = field(default_factory=dict)
    settings: Groups = field(default_factory=dict)

    @property
    def faults(self) -> list[tuple[Case, Stream]]:
        """Every stream that says what applications feel, or should have when its test failed, with its test."""
        return [
            (test, stream)
            for test in self.tests
            for stream in test.streams
            if stream.recording.kept or test.outcome in FAILED
        ]

    def sentence(self) -> str:
        """Say what the run amounts to."""
        count = Counter(test.outcome for test in self.tests)
        streams = [stream for _, stream in self.faults if stream.judged]
        lost = sum(len(stream.verdict.lost) for stream in streams)
        confirmed = sum(stream.verdict.confirmed for stream in streams)
        failed = "".join(f"{count[outcome]} {outcome}, " for outcome in FAILED if count[outcome])
        messages = f"; of {confirmed} confirmed messages {lost or 'none'} {'were' if lost > 1 else 'was'} lost"
        return f"{failed}{count['passed']} passed{messages if streams else ''}."

    def as_json(self) -> dict[str, Any]:
        """Return everything but the messages."""
        return {
            "began": self.began.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 1),
            "run": self.run,
            "sentence": self.sentence(),
            "versions": self.versions,
            "settings": self.settings,
            "tests": [
                {
                    "name": test.name,
                    "nodeid": test.nodeid,
                    "outcome": test.outcome,
                    "seconds": round(test.seconds, 2),
                    "why": test.why,
                    "remarks": test.remarks,
                    "streams": [stream.as_json() for stream in test.streams],
                }
                for test in self.tests
            ],
        }

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OSError: the file cannot be written.
        """
        path.write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
