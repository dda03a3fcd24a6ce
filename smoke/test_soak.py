"""One fault after the other, by chance, for as long as one wants: --profile soak --minutes 30 --seed 7."""

from __future__ import annotations

import time

import pytest

from smoke.aftermath import assert_healed, assert_whole
from smoke.deployment import Deployment
from smoke.outlive import assert_up, flow
from smoke.partition import recovered
from smoke.report import Record
from smoke.stream import flowing
from smoke.walk import known_faults, walk

pytestmark = [pytest.mark.disruptive, pytest.mark.cluster, pytest.mark.soak]


@pytest.mark.timeout(0)
def test_a_random_walk_through_the_faults(
    deployment: Deployment, record: Record, request: pytest.FixtureRequest
) -> None:
    seed, minutes = request.config.getoption("--seed"), request.config.getoption("--minutes")
    faults = known_faults(deployment)
    with flowing(deployment) as stream:
        begin = time.monotonic()
        for number, step in enumerate(walk(seed, sorted(faults)), start=1):
            if time.monotonic() - begin >= minutes * 60:
                break
            print(f"--seed {seed}, step {number}: {step}", flush=True)
            with faults[step.fault](step.victim):
                # How long it lasts is what is tested.
                time.sleep(step.seconds)
            assert_up(deployment, *deployment.nodes)
            recovered(deployment, assert_whole, assert_healed)
            flow(stream, f"messages flow after step {number}, {step.fault}")
        stream.finish()
        record(stream.verdict(since=begin))
