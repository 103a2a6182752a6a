# SPDX-License-Identifier: GPL-2.0-only
"""Commands on the machine that runs the tests, and on one that hides its memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmap.cli.main import run
from rmap.errors import PrivilegeError
from rmap.image import read_image


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that does nothing for a while; its pid."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.terminate()


@pytest.mark.live
def test_a_snapshot_of_one_process(
    sleeper: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.zip"
    arguments = ["snapshot", "--freeze", "-q", "--format", "json", "-o", str(path), str(sleeper)]
    assert run(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "rmap.snapshot/1"
    assert told["bytes"] == path.stat().st_size
    assert (told["consistency"], told["processes_read"]) == ("frozen", 1)
    image = read_image(path)
    assert {row["table"]: row["rows"] for row in told["tables"]}["ptes"] == len(image.ptes)
    # Only its pages, not all of RAM: an image of one process is small.
    assert len(image.pages) <= len(image.ptes)
    assert run(arguments) == 0  # an image may be replaced


@pytest.mark.live
def test_a_snapshot_into_a_directory(sleeper: int, tmp_path: Path) -> None:
    assert run(["snapshot", "-q", "-o", f"{tmp_path}/image/", str(sleeper)]) == 0
    assert read_image(tmp_path / "image").processes["pid"].tolist() == [sleeper]


@pytest.mark.live
def test_who_maps_a_file_knows_it_by_its_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is mapped under one name, and asked for under another."""
    (tmp_path / "first").write_bytes(b"x" * 8192)
    (tmp_path / "second").hardlink_to(tmp_path / "first")
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'r+b') as f: m = mmap.mmap(f.fileno(), 8192)\n"
        "m[4096]; print('mapped', flush=True); sys.stdin.read()"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "first")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"mapped\n"
        target = f"{tmp_path}/second@4K+1"
        assert run(["who", "-q", target, "--format", "json"]) == 0
        process.stdin.close()
    (page,) = json.loads(capsys.readouterr().out)["runs"]
    assert [mapping["pids"] for mapping in page["mappings"]] == [[process.pid]]
    assert page["mappings"][0]["name"] == str(tmp_path / "first")
    assert page["verdict"] == "agree"


def test_without_the_privilege_it_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PrivilegeError("page frame numbers need CAP_SYS_ADMIN: run as root (sudo)")

    import rmap.source.proc

    # The package's `snapshot` is the function; the module of that name is behind it.
    module = sys.modules[rmap.source.proc.snapshot.__module__]
    monkeypatch.setattr(module, "require_pfns", refuse)
    for arguments in (
        ["snapshot", "-o", str(tmp_path / "x.zip")],
        ["map", "-o", str(tmp_path / "x.svg")],
        ["who", "1"],
        ["report"],
        ["fsck"],
    ):
        assert run(arguments) == 3
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "CAP_SYS_ADMIN" in err
    assert not list(tmp_path.iterdir())
