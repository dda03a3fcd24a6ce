"""Makes a report of every run: smoke/report/ has the page, the figures as JSON, JUnit XML and the histories."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from datetime import datetime
from pathlib import Path
from typing import TextIO

import pytest

from smoke import environment, journal, page
from smoke.deployment import PROJECT, Deployment
from smoke.progress import Progress
from smoke.report import Case, Report
from smoke.table import table

DIRECTORY = PROJECT / "smoke/report"
NAME = "smoke-report"
# Where pytest remembers from run to run how long each test takes.
DURATIONS = "smoke/durations"


class ReportPlugin:
    """Collects what the tests did; registered by register().

    Args:
        config: of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._report = Report(datetime.now().astimezone(), {})
        self._test = Case("")
        self._deployments: list[Deployment] = []

    @property
    def _cache(self) -> pytest.Cache | None:
        """What pytest remembers from run to run, unless it was told not to (-p no:cacheprovider)."""
        return getattr(self._config, "cache", None)

    def deployed(self, deployments: list[Deployment]) -> None:
        """Say what the run is about."""
        self._deployments = deployments
        option = self._config.option
        self._report.run = {
            "inventory": ", ".join(_relative(source) for source in option.inventory) or "that of ansible.cfg",
            "pools (nodes + balancers)": ", ".join(
                f"{deployment.pool} ({len(deployment.nodes)} + {len(deployment.balancers)})"
                for deployment in deployments
            ),
            "profile": str(getattr(option, "profile", "")),
            "tests": " ".join(self._config.args),
        }
        shutil.rmtree(DIRECTORY / "histories", ignore_errors=True)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Show progress while a test runs."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or reporter.verbosity < 0:
            return (yield)
        durations = self._cache.get(DURATIONS, {}) if self._cache else {}
        terminal = _terminal() if reporter.isatty() else None
        try:
            with Progress(terminal, reporter.write_line, durations.get(item.nodeid)):
                return (yield)
        finally:
            if terminal is not None:
                terminal.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what came out of a test, phase by phase."""
        if report.when == "setup":
            self._test = Case(report.nodeid)
            self._report.tests.append(self._test)
        test = self._test
        test.seconds += report.duration
        if report.outcome != "passed" and test.outcome != "failed":
            test.outcome, test.why = report.outcome, _why(report)
        if report.when == "teardown":
            if test.outcome == "interrupted":
                test.outcome = "passed"
            self._keep(test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the figures."""
        if not self._report.tests:
            return
        if self._test.outcome == "interrupted":
            self._keep(self._test)
        if self._report.faults:
            self._report.versions = environment.versions(self._deployments)
            self._report.settings = environment.settings(self._deployments)
        self._report.seconds = time.monotonic() - self._began
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        self._report.write(DIRECTORY / "report.json")
        if self._cache:
            known = self._cache.get(DURATIONS, {})
            passed = {test.nodeid: test.seconds for test in self._report.tests if test.outcome == "passed"}
            self._cache.set(DURATIONS, {**known, **passed})

    def _keep(self, test: Case) -> None:
        test.keep(journal.take(), DIRECTORY / "histories")
        test.remarks = journal.take_remarks()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what each fault cost."""
        if lines := table(self._report):
            terminalreporter.section("longest interruption seen")
            for line in lines:
                terminalreporter.line(line)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: object) -> None:
        """Name the page."""
        report.title = "What applications felt when RabbitMQ failed"  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, prefix: list[str], summary: list[str], postfix: list[str]) -> None:
        """Give pytest-html what is ours; the style puts its own table between the second and the third."""
        prefix.append(page.overview(self._report))
        summary.append(page.faults(self._report))
        postfix.append(page.surroundings(self._report))


def register(config: pytest.Config) -> None:
    """Add the plugin, and have pytest-html write a page unless the command line says where."""
    if not config.option.htmlpath and not config.option.collectonly:
        config.option.htmlpath = str(DIRECTORY / "report.html")
        config.option.self_contained_html = True
        config.option.css = [*config.option.css, str(page.STYLE)]
    config.pluginmanager.register(ReportPlugin(config), NAME)


def about(config: pytest.Config, deployments: list[Deployment]) -> None:
    """Say to the registered plugin what the run is about."""
    config.pluginmanager.get_plugin(NAME).deployed(deployments)  # type: ignore[union-attr]


def _why(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).partition("\n")[0]


def _relative(source: str) -> str:
    path = Path(source).resolve()
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else source


def _terminal() -> TextIO | None:
    # Not sys.stdout, which pytest captures.
    try:
        return Path("/dev/tty").open("w", encoding="utf-8")
    except OSError:
        return None
