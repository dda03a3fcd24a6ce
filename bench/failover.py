"""Measures what failures cost with settings of several origins: the same faults, load, clients and hosts."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.failover_report import Felt, Series, load, save, section
from bench.faults import FAULTS
from bench.lab import PROJECT, BenchmarkError, Lab
from bench.report import this_machine
from smoke import journal
from smoke.aftermath import assert_healed, assert_whole
from smoke.deployment import Deployment, PlaybookError
from smoke.history import Kind
from smoke.outlive import FLOWING
from smoke.stream import SETTLE, Stream, flowing

# Each is a directory below bench/settings, an inventory source over that of the lab; in the order of the document.
SETTINGS = ("lan", "lan-4.3", "default", "default-4.3", "book", "kolla-ansible", "openstack-ansible", "bosh")
# Seconds that a fault lasts at most: a node that went silent is given up by its peers after up to 75 s (net_ticktime).
LONGEST = 90.0
# So many seconds after a deployment is whole again it is looked at anew: what nodes say of partitions is up to 5 s old.
STILL = 6.0
# Where the history of each fault is, by settings, begin of the series, round and fault: python -m smoke.judge FILE.
HISTORIES = PROJECT / "bench" / "histories"
# So much is told of what went wrong, in characters.
LINE = 300


def measure(runs: int, names: Sequence[str], kept: Path, *, more: bool = False) -> Iterator[str]:
    """Measure every fault so many times with each of the settings; gives the section anew each time all were measured.

    The section has what was measured with other settings before, too.

    Args:
        runs: how many times.
        names: of the settings.
        kept: the directory where results are kept from run to run.
        more: add to what is kept of these settings, instead of replacing it.

    Raises:
        BenchmarkError: with some of them not every run could be measured to its end.
    """
    failed = []
    for name in names:
        before = load(kept, name) if more else []
        series = Series(name, this_machine(), datetime.now(UTC))
        rounds = _rounds(series, Lab((PROJECT / "bench" / "settings" / name,)), runs, before)
        while _another(rounds, series) or (series.broken and series.felt):
            save(kept, [*before, series])
            measured = [each for settings in SETTINGS for each in load(kept, settings)]
            yield section(measured, {name: fault.gate for name, fault in FAULTS.items()}, LONGEST)
            if series.broken:
                break
        if series.broken:
            failed.append(f"{name} ({series.times} of {runs} runs)")
    if failed:
        raise BenchmarkError(f"could not be measured to the end: {', '.join(failed)}")


def _another(rounds: Iterator[None], series: Series) -> bool:
    """Measure all faults once more; False if there is nothing new to keep: half a round is none."""
    known = len(series.felt)
    try:
        next(rounds, None)
    except (BenchmarkError, PlaybookError) as error:
        # Other settings can be measured all the same.
        series.broken = _one_line(error)
        print(f"{series.settings}: {series.broken}", flush=True)
        del series.felt[known:]
    return len(series.felt) > known


def _rounds(series: Series, lab: Lab, runs: int, before: Sequence[Series]) -> Iterator[None]:
    name = series.settings
    deployment = _deployed(lab, name)
    series.versions = lab.versions()
    series.told = {**deployment.balancer.settings, **deployment.nodes[0].settings}
    if not all(each.is_of(series.versions, series.told) for each in before):
        raise BenchmarkError("what is kept was measured with other versions or settings: measure anew, without --more")
    for number in range(1, runs + 1):
        for fault in FAULTS:
            felt = _once(deployment, name, fault, _history(series, number, fault))
            series.felt.append(felt)
            print(f"{name}, run {number} of {runs}: {fault}: {felt}", flush=True)
            if not felt.whole:
                deployment = _mended(lab, name, deployment)
        series.times += 1
        yield


def _history(series: Series, number: int, fault: str) -> Path:
    words = (series.settings, f"{series.began:%Y%m%dT%H%M%S}", str(number), *re.findall(r"\w+", fault))
    return HISTORIES / f"{'-'.join(words)}.jsonl.gz"


def _once(deployment: Deployment, name: str, fault: str, history: Path) -> Felt:
    """Let clients feel a fault, and keep their history. Whatever goes wrong is a result."""
    felt = Felt(name, fault)
    try:
        with flowing(deployment) as stream:
            broken = FAULTS[fault].breaks(deployment, stream)
            begin = time.monotonic()
            with broken:
                recovered = _flows(stream)
            whole = _becomes_whole(deployment)
            stream.end(SETTLE)
            verdict = stream.verdict(since=begin)
            felt = Felt(
                name,
                fault,
                silence=max(verdict.delivery_gap.seconds, verdict.confirm_gap.seconds),
                lost=len(verdict.lost),
                recovered=recovered,
                whole=whole,
                complaint="; ".join(
                    [
                        *verdict.failures(),
                        *(f"the benchmark itself stood still for {stall}" for stall in verdict.stalls),
                    ]
                ),
            )
    except Exception as error:
        # Whatever the clients, the API or Ansible raise in a deployment that is broken on purpose.
        return replace(felt, whole=False, complaint=felt.complaint or _one_line(error))
    finally:
        for recording in journal.take():
            history.parent.mkdir(exist_ok=True)
            recording.history.save(history)
    return felt


def _flows(stream: Stream) -> bool:
    """Wait until messages arrive again; False if they do not while a fault may last."""
    try:
        stream.wait_for(Kind.delivery, FLOWING, since=time.monotonic(), what="messages flow", within=LONGEST)
    except AssertionError:
        return False
    return True


def _becomes_whole(deployment: Deployment) -> bool:
    try:
        assert_whole(deployment)
        threading.Event().wait(STILL)
        assert_whole(deployment)
        assert_healed(deployment)
    except AssertionError:
        return False
    return True


def _mended(lab: Lab, name: str, deployment: Deployment) -> Deployment:
    """Make whole what does not become so by itself: as an operator restarts a partitioned cluster, or from bare hosts.

    Raises:
        BenchmarkError: that did not help, either.
    """
    try:
        deployment.stop(*deployment.nodes)
        deployment.start(*deployment.nodes)
        deployment.playbook("site")
        assert_whole(deployment)
    except (PlaybookError, AssertionError):
        return _deployed(lab, name)
    return deployment


def _deployed(lab: Lab, name: str) -> Deployment:
    print(f"{name}: hosts are made and deployed", flush=True)
    lab.make()
    lab.deploy(f"deployment of {name}")
    (deployment,) = Deployment.load(lab.inventory)
    return deployment


def _one_line(error: BaseException) -> str:
    """Say what went wrong, without the paths of this machine, which are nobody's business in a document."""
    line = " ".join((str(error) or type(error).__name__).split())
    for path, name in ((f"{PROJECT}/", ""), (str(Path.home()), "~")):
        line = line.replace(path, name)
    return line if len(line) <= LINE else f"{line[:LINE]} ..."
