# SPDX-License-Identifier: GPL-2.0-only
"""Reduced dumps and their images, each made once."""

from __future__ import annotations

import pytest

from rmap.image import MemoryImage

from .reduced import SERIES, Reduced, unpack


@pytest.fixture(scope="session", params=SERIES)
def reduced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reduced:
    """A reduced dump of each kernel; skips without drgn."""
    pytest.importorskip("drgn", reason="reading dumps needs drgn")
    return unpack(request.param, tmp_path_factory.mktemp("dump"))


@pytest.fixture(scope="session")
def image(reduced: Reduced) -> MemoryImage:
    """What rmap reads in it."""
    from rmap.source.dump import dump_image

    return dump_image(reduced.path, reduced.debug)
