"""Whatever is run: reports reach the process that prints them, and its last line counts the node tests not run."""

from __future__ import annotations

import importlib.util

import pytest

from tests.comfyui import NOT_FOUND

if importlib.util.find_spec("hypothesis") is not None:  # not in the environment of make test-hpsv2
    from hypothesis import settings

    settings.register_profile("unhurried", deadline=None)  # a busy machine and first imports are no failures
    settings.load_profile("unhurried")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the terminal's own last line
def pytest_sessionfinish(session: pytest.Session):
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []  # none in a worker of xdist
    count = sum(isinstance(report.longrepr, tuple) and NOT_FOUND in report.longrepr[2] for report in skipped)
    if count:
        reporter.write_line(f"{count} node tests not run. {NOT_FOUND}", yellow=True)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test printed is text that can be sent: half a surrogate pair, of a hostile file name, ends xdist."""
    report = yield
    report.sections = [
        (name, printed.encode("utf-8", "backslashreplace").decode("utf-8")) for name, printed in report.sections
    ]
    return report
