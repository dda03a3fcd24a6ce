"""A suite that stands still says so, and one that does not says nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from smoke.history import Event, Kind
from smoke.judge import judge
from tests.rendering import ROOT

# Beats until it is told to end, and prints what it wrote down.
BEATING = """
import sys
from smoke.history import History
from smoke.pulse import Pulse
history = History()
with Pulse(history):
    print("beats", flush=True)
    sys.stdin.readline()
print(*(f"{event.kind} {event.detail}" for event in history.events()), sep="\\n")
"""


@pytest.mark.parametrize("stalls", [0, 1])
def test_who_stood_still_says_for_how_long(stalls: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BEATING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as suite:
        assert suite.stdout is not None
        assert suite.stdout.readline() == "beats\n"
        for _ in range(stalls):
            os.kill(suite.pid, signal.SIGSTOP)
            time.sleep(1)
            os.kill(suite.pid, signal.SIGCONT)
            time.sleep(0.2)
        said = suite.communicate("end\n")[0].split("\n")[:-1]
    told = [line.split() for line in said if line]
    assert bool(told) == bool(stalls), said
    # The machine of the tests may stand still on its own account, too.
    assert all(kind == "stalled" and float(seconds) > 0.9 * stalls for kind, seconds, _ in told[:1]), said


def test_a_verdict_names_the_stalls_within_its_window() -> None:
    events = [Event(at, Kind.stalled, "suite", detail=f"{at:.2f} s") for at in (1.0, 3.0)]

    assert "the suite itself stood still for 3.00 s." in judge(events, since=2.0).sentence()
    assert "stood still" not in judge(events, since=4.0).sentence()
