# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin for ``tools/coverage_doc.py``: tells coverage which test is running."""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Record what the body of a test reaches under the test's id."""
    running = coverage.Coverage.current()
    if running is None:
        raise pytest.UsageError("coverage_plugin: run me under `coverage run`")
    running.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        running.switch_context("")
