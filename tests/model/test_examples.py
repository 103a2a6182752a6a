# SPDX-License-Identifier: GPL-2.0-only
"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rmap.check
import rmap.mm
import rmap.model
import rmap.sync

MODULES = sorted(
    found.name
    for package in (rmap.check, rmap.mm, rmap.model, rmap.sync)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
)


@pytest.mark.parametrize("name", ["rmap.check", "rmap.model", *MODULES])
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    # Of compiled functions doctest sees none, so this counts those of plain modules.
    names = ("rmap.check", "rmap.model", "rmap.model.machine", "rmap.mm.inject")
    assert all(doctest.testmod(importlib.import_module(name)).attempted for name in names)
