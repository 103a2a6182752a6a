# SPDX-License-Identifier: GPL-2.0-only
"""A guest that stands still in QEMU is asked over its socket; one that runs is not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rmap.errors import TargetError

pytest.importorskip("drgn", reason="reading guests needs drgn")

#: Where packages of kernels are kept, so that a test run need not fetch one.
PACKAGES = os.environ.get("RMAP_LAB_PACKAGES")


def stop(control: Path) -> None:
    """Let the guest stand still, and hang up: QEMU talks to one client at a time."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(control))
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.readline()
            for command in ("qmp_capabilities", "stop"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass


def ask(command: str, control: Path, *more: str) -> Any:
    """The answer of a command, in a process of its own: when that ends it has hung up."""
    words = [sys.executable, "-m", "rmap.cli.main", command, "--dump", f"qmp:{control}", *more]
    result = subprocess.run([*words, "--format", "json"], capture_output=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not PACKAGES, reason="RMAP_LAB_PACKAGES names no directory of kernel packages")
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU here")
def test_a_guest_that_stands_still(tmp_path: Path) -> None:
    from lab.guest import Machine, boot
    from lab.initramfs import build
    from lab.packages import fetch, newest
    from rmap.source.dump.guest import guest_status
    from rmap.source.dump.program import open_dump

    kernel = fetch(newest("6.12"), Path(PACKAGES or ""))
    control = tmp_path / "control"
    with boot(kernel.image, build(kernel, tmp_path), Machine(), tmp_path) as guest:
        guest.wait(120)
        with pytest.raises(TargetError, match="the guest runs"):
            open_dump(Path(f"qmp:{control}"))
        stop(control)
        assert guest_status(str(control)) == "paused"
        answer = ask("fsck", control)
        runs = ask("who", control, "1")["runs"]
    assert answer["findings_in_all"] == 0
    assert answer["missing"] == {"pages": 0, "tables": 0, "objects": 0}
    assert len(runs) > 10
    assert all(run["verdict"] in ("agree", "zero page", None) for run in runs)
