# SPDX-License-Identifier: GPL-2.0-only
"""What the tests against the running kernel share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import settings
from .world import World, make_file

_COMPILE_TIMEOUT = 60


@pytest.fixture(scope="session", autouse=True)
def machine_left_as_found() -> Iterator[None]:
    """See that the machine's settings end as they were."""
    settings.restore_at_exit()
    before = settings.found()
    yield
    settings.restore_all()
    assert settings.found() == before


@pytest.fixture(scope="session")
def puppet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled puppet.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the test processes with")
    program = tmp_path_factory.mktemp("live") / "puppet"
    source = Path(__file__).with_name("puppet.c")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-pthread", "-o", str(program), str(source)]
    # Linked statically, a puppet shares no page with the rest of the machine, and the sizes of
    # its memory do not depend on what others do. Not every system has the libraries for it.
    for options in (["-static"], []):
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=_COMPILE_TIMEOUT
        )
        if done.returncode == 0:
            return program
    pytest.fail(f"{source.name} does not compile: {done.stderr}")


@pytest.fixture
def world(puppet: Path) -> Iterator[World]:
    """A world without processes yet."""
    with World(puppet) as made:
        yield made


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """A file of 32 pages, no two of them alike."""
    return make_file(tmp_path / "data", 32)
