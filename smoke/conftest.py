"""Point the suite at a deployment: pytest smoke/ [--inventory inventory/example] [--disrupt]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from smoke import balancer_stats, management
from smoke.deployment import Balancer, Deployment, Node
from smoke.judge import Verdict
from smoke.waiting import eventually

DEPLOYMENT = pytest.StashKey[Deployment]()
FELT = pytest.StashKey[list[tuple[str, Verdict]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what says which deployment, and how far the suite may go."""
    group = parser.getgroup("smoke")
    group.addoption("--inventory", help="inventory of the deployment (default: the one that ansible.cfg names)")
    group.addoption(
        "--disrupt",
        action="store_true",
        help="also run the tests that stop something, although the inventory does not set smoke_may_disrupt",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "disruptive: stops or changes something of the deployment, and heals it")
    config.stash[FELT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the inventory does not allow."""
    if config.option.collectonly:
        return
    deployment = Deployment.load(config.getoption("--inventory"))
    config.stash[DEPLOYMENT] = deployment
    if deployment.may_disrupt or config.getoption("--disrupt"):
        return
    for item in items:
        if item.get_closest_marker("disruptive"):
            item.add_marker(pytest.mark.skip(reason="stops something: needs --disrupt, or smoke_may_disrupt: true"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what each fault cost."""
    felt = config.stash[FELT]
    if not felt:
        return
    terminalreporter.section("longest interruption seen")
    width = max(len(name) for name, _ in felt)
    terminalreporter.line(f"{'':{width}}  deliveries  confirms  confirmed  lost  redelivered  republished  verdict")
    for name, verdict in felt:
        terminalreporter.line(
            f"{name:{width}}  {verdict.delivery_gap.seconds:8.2f} s {verdict.confirm_gap.seconds:7.2f} s"
            f"  {verdict.confirmed:9}  {len(verdict.lost):4}  {verdict.redelivered:11}  {verdict.republished:11}"
            f"  {'ok' if verdict.ok else 'NOT OK'}"
        )


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Keep a verdict for the table at the end, and insist that it is good."""

    def keep(verdict: Verdict) -> None:
        request.config.stash[FELT].append((request.node.name.removeprefix("test_").replace("_", " "), verdict))
        print(verdict.sentence())
        assert verdict.ok, verdict.sentence()

    return keep


@pytest.fixture
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """The deployment, whole before the test and whole again after it."""
    deployment = request.config.stash[DEPLOYMENT]
    assert_whole(deployment)
    yield deployment
    if request.node.get_closest_marker("disruptive"):
        try:
            assert_whole(deployment, within=1)
        except AssertionError:
            deployment.playbook("site")
        assert_whole(deployment)


def assert_whole(deployment: Deployment, within: float = 30) -> None:
    """Insist that every node sees every node running, and every balancer every server UP."""
    for node in deployment.nodes:
        eventually(partial(_sees_all_running, deployment, node), within=within, what=f"{node.name} sees all nodes run")
    for balancer in deployment.balancers:
        eventually(
            partial(_sees_all_up, deployment, balancer), within=within, what=f"{balancer.name} sees all servers UP"
        )


def _sees_all_running(deployment: Deployment, node: Node) -> bool:
    seen = management.running(deployment, node)
    assert seen == {node.nodename: True for node in deployment.nodes}, seen
    return True


def _sees_all_up(deployment: Deployment, balancer: Balancer) -> bool:
    seen = balancer_stats.statuses(balancer)
    assert seen == {node.name: "UP" for node in deployment.nodes}, seen
    return True
