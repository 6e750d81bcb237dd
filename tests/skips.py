"""At the end of a run: which tests skipped, counted by reason."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say for each reason how many tests, or whole files of tests, skipped."""
    reasons = Counter(reason_of(report) for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        terminalreporter.section("skipped, by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4} {reason}")


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return a skip's reason, without the word that pytest puts before it."""
    assert isinstance(report.longrepr, tuple)
    return report.longrepr[2].removeprefix("Skipped: ")
