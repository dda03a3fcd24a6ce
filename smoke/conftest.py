"""Point the suite at a deployment: pytest smoke/ [--inventory inventory/example] [--disrupt] [--profile full]."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

import pytest

from smoke import journal, management, report_plugin
from smoke.aftermath import assert_clear_of_delivery_limit, assert_whole
from smoke.deployment import PROJECT, Deployment, PlaybookError
from smoke.judge import Verdict
from smoke.options import positive
from smoke.partition import recovered
from smoke.report import Record
from smoke.stream import NAMES

DEPLOYMENTS = pytest.StashKey[list[Deployment]]()
PROFILES = ("essential", "full", "soak")
FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which deployment, and how far the suite may go."""
    group = parser.getgroup("smoke")
    group.addoption(
        "--inventory",
        action="append",
        default=[],
        help="inventory of the deployment; repeat for more sources (default: the one that ansible.cfg names)",
    )
    group.addoption(
        "--disrupt",
        action="store_true",
        help="also run the tests that stop something, although the inventory does not set smoke_may_disrupt",
    )
    group.addoption(
        "--profile",
        choices=PROFILES,
        default=PROFILES[0],
        help="essential: what every deployment has to stand, in minutes; full: every fault, once; "
        "soak: one after the other, by chance (default: essential)",
    )
    group.addoption("--minutes", type=positive, default=10.0, help="how long the profile soak goes on (default: 10)")
    group.addoption("--seed", type=int, default=time.time_ns() % 10000, help="of the profile soak, to have it again")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and keep a report."""
    config.option.xmlpath = config.option.xmlpath or str(PROJECT / "smoke/report/junit.xml")
    # pika leaves the socket of a connection that is given up while it is being made to the garbage collector.
    config.addinivalue_line("filterwarnings", "default:unclosed <socket:ResourceWarning")
    config.addinivalue_line("markers", "disruptive: stops or changes something of the deployment, and heals it")
    config.addinivalue_line("markers", "cluster: needs nodes that form one cluster")
    config.addinivalue_line("markers", "full: takes long, and is only run by --profile full")
    config.addinivalue_line("markers", "soak: goes on for as long as one wants, and is only run by --profile soak")
    report_plugin.register(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Ask Ansible for the deployments of the inventory, and go no further if there is none."""
    if session.config.option.collectonly:
        return
    try:
        deployments = Deployment.load(session.config.getoption("--inventory"))
        for deployment in deployments:
            management.assert_reachable(deployment)
    except (PlaybookError, LookupError, AssertionError) as error:
        raise pytest.UsageError(str(error)) from error
    session.config.stash[DEPLOYMENTS] = deployments
    report_plugin.about(session.config, deployments)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test against each pool of the inventory."""
    pools = metafunc.config.stash.get(DEPLOYMENTS, [])
    if "deployment" in metafunc.fixturenames and len(pools) > 1:
        metafunc.parametrize("deployment", pools, ids=[pool.pool for pool in pools], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the profile does not ask for, and what the inventory does not allow."""
    profile = config.getoption("--profile")
    config.hook.pytest_deselected(items=[item for item in items if not _belongs(item, profile)])
    items[:] = [item for item in items if _belongs(item, profile)]
    deployments = config.stash.get(DEPLOYMENTS, [])
    may_disrupt = all(deployment.may_disrupt for deployment in deployments) or config.getoption("--disrupt")
    clustered = all(deployment.clustered for deployment in deployments)
    for item in items:
        if item.get_closest_marker("disruptive") and not may_disrupt:
            item.add_marker(pytest.mark.skip(reason="stops something: needs --disrupt, or smoke_may_disrupt: true"))
        if item.get_closest_marker("cluster") and not clustered:
            item.add_marker(pytest.mark.skip(reason="needs nodes that form one cluster"))


def _belongs(item: pytest.Item, profile: str) -> bool:
    if profile == "soak" or item.get_closest_marker("soak"):
        return profile == "soak" and item.get_closest_marker("soak") is not None
    return profile == "full" or not item.get_closest_marker("full")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember for the fixtures of a test that it failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture
def record() -> Record:
    """Keep a verdict for the report, and insist that it is good."""

    def keep(verdict: Verdict, gate: float | None = None) -> None:
        journal.keep(verdict, gate)
        print(verdict.sentence())
        assert verdict.ok, verdict.sentence()
        # Where a queue gives messages up, that is what the test is about.
        if not verdict.dead_lettered:
            assert_clear_of_delivery_limit(verdict)
        longest = max(verdict.delivery_gap.seconds, verdict.confirm_gap.seconds)
        assert gate is None or longest <= gate, f"silent for longer than {gate:g} s: {verdict.sentence()}"

    return keep


@pytest.fixture
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The deployment, whole before the test and whole again after it."""
    deployment: Deployment = getattr(request, "param", request.config.stash[DEPLOYMENTS][0])
    disruptive = request.node.get_closest_marker("disruptive")
    met_whole(deployment, disruptive=disruptive is not None)
    yield deployment
    if disruptive:
        if request.node.stash[FAILED]:
            heal(deployment)
            return
        try:
            recovered(deployment, assert_whole)
        except AssertionError:
            # Still the failure of this test, but not of all that come after it.
            heal(deployment)
            raise


def met_whole(deployment: Deployment, *, disruptive: bool) -> None:
    """Insist that a deployment is whole before a test. Where that takes restarts, only a disruptive test may help."""
    if disruptive:
        recovered(deployment, assert_whole)
    else:
        assert_whole(deployment)


@pytest.fixture
def hosts(deployment: Deployment) -> Deployment:
    """The deployment, if its hosts can be switched off and cut off."""
    if not all(deployment.power.values()):
        pytest.skip("needs hosts that the inventory can switch off and on (smoke_power)")
    return deployment


def heal(deployment: Deployment) -> None:
    """Repair what a test has left behind."""
    # First what is down: site.yml refuses to change a cluster that is not whole.
    deployment.start(*deployment.nodes)
    try:
        assert_whole(deployment)
    except AssertionError:
        # Nodes that run and do not see each other any more find together only by a restart.
        deployment.stop(*deployment.nodes)
        deployment.start(*deployment.nodes)
    deployment.playbook("site")
    assert_whole(deployment)
    # A queue that was removed while the cluster was partitioned may be back, without a member that everybody counts.
    for node in deployment.nodes:
        management.remove_queues(deployment, node, NAMES)
