# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios: small programs for the model, one operation a line (docs/scenarios.md).

A superset of the language in which the conformance programs are written::

    mmap P0 A 4 anon        # four pages, private
    write P0 A 0 4
    fork P0 P1
    write P1 A 0 1          # copy on write
    expect mapcount P0 A 0 == 1
    expect mapcount P0 A 1 == 2
"""

from __future__ import annotations

from rmap.scenario.errors import Place, ScenarioError
from rmap.scenario.parser import parse
from rmap.scenario.program import Program

__all__ = ["Place", "Program", "ScenarioError", "parse"]
