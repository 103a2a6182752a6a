# SPDX-License-Identifier: GPL-2.0-only
"""What a snapshot refuses, and files as maps names them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rmap.errors import PrivilegeError, TargetError
from rmap.image.validate import validate_image
from rmap.source import proc
from rmap.source.proc import file_identity, snapshot
from rmap.source.proc.files import Denied
from rmap.source.proc.kernelconfig import keeps_page_mapcounts
from rmap.source.proc.maps import parse_maps

SOURCE = Path(proc.__file__).parents[3]

#: Root of a user namespace of its own has every capability there, and still sees no frames.
PRETENDER = """
import ctypes, os, sys
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(77)
from rmap.errors import PrivilegeError
from rmap.source.proc import snapshot
try:
    snapshot()
except PrivilegeError as error:
    print(error.exit_status, error)
"""


def test_without_the_right_the_answer_is_what_to_do_and_never_a_zero() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRETENDER],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("no user namespaces here")
    assert done.stdout.startswith("3 "), done.stderr
    assert "CAP_SYS_ADMIN" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.live
def test_only_processes_can_be_asked_for() -> None:
    with pytest.raises(TargetError, match="no such process: 99999999"):
        snapshot([99999999])
    with pytest.raises(TargetError, match="rmap itself"):
        snapshot([os.getpid()])
    with subprocess.Popen(["sleep", "60"]) as process:
        image = snapshot([process.pid], ram=False)
        process.kill()
    validate_image(image, "snapshot")
    assert image.processes["pid"].tolist() == [process.pid]
    assert image.machine["scope"].tolist() == ["processes"]


@pytest.mark.live
def test_a_thread_is_not_a_process() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, args=(30,))
    thread.start()
    try:
        with pytest.raises(TargetError, match=f"is a thread of process {os.getpid()}"):
            snapshot([thread.native_id or 0])
    finally:
        release.set()
        thread.join()


@pytest.mark.live
def test_a_process_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Denied("Operation not permitted")

    monkeypatch.setattr("rmap.source.proc.contents.Pagemap", refuse)
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(PrivilegeError, match=f"process {process.pid} may not be read"):
            snapshot([process.pid], ram=False)
        process.kill()


def test_a_file_is_known_as_maps_shows_it(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(b"x")
    device, inode = file_identity(str(path))
    assert inode == path.stat().st_ino
    with open("/proc/self/maps", "rb") as maps:
        lines = parse_maps(maps.read())
    own = next(line for line in lines if line.path.endswith(".so.6"))
    assert file_identity(own.path) == (own.device, own.inode)
    assert device >> 20 < 4096


@pytest.mark.parametrize("kind", ["empty", "directory", "device"])
def test_what_cannot_be_mapped_is_known_as_stat_shows_it(tmp_path: Path, kind: str) -> None:
    path = {"empty": tmp_path / "empty", "directory": tmp_path, "device": Path("/dev/null")}[kind]
    if kind == "empty":
        path.touch()
    status = path.stat()
    wanted = os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino
    assert file_identity(str(path)) == wanted


@pytest.mark.parametrize("name", ["nowhere", "nul\0byte"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetError, match="cannot open"):
        file_identity(str(tmp_path / name))


def test_averaged_counts_are_known_from_the_configuration() -> None:
    assert keeps_page_mapcounts(None)
    assert keeps_page_mapcounts(b"CONFIG_PAGE_MAPCOUNT=y\n# CONFIG_NO_PAGE_MAPCOUNT is not set\n")
    assert not keeps_page_mapcounts(b"CONFIG_A=y\nCONFIG_NO_PAGE_MAPCOUNT=y\n")
