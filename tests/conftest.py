"""Whatever is run: the last line says whether the nodes' tests were among it."""

from __future__ import annotations

import pytest

from tests.comfyui import NOT_FOUND


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the terminal's own last line
def pytest_sessionfinish(session: pytest.Session):
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []  # none in a worker of xdist
    count = sum(isinstance(report.longrepr, tuple) and NOT_FOUND in report.longrepr[2] for report in skipped)
    if count:
        reporter.write_line(f"{count} node tests not run. {NOT_FOUND}", yellow=True)
    return result
