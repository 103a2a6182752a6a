# SPDX-License-Identifier: GPL-2.0-only
"""Sources that are no files: a guest of QEMU, and the running kernel; and files of debugging."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rmap.cli.main import run
from rmap.errors import ImageError, MissingFeatureError, TargetError
from rmap.source.dump.guest import guest_status, is_guest, require_kcore
from rmap.source.dump.program import open_dump, sort_debug_files

pytest.importorskip("drgn", reason="reading guests needs drgn")

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}
Serve = Callable[..., Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a QEMU that says these things, the first at once and the others when asked."""
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "control"
    listener.bind(str(path))
    listener.listen(1)
    threads: list[threading.Thread] = []

    def talk(lines: list[bytes]) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError):
            stream.write(lines[0])
            stream.flush()
            for line in lines[1:]:
                if not stream.readline():
                    return
                stream.write(line)
                stream.flush()

    def start(*answers: object) -> Path:
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n"
                 for one in answers]  # fmt: skip
        threads.append(threading.Thread(target=talk, args=(lines,)))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


def answers(status: str) -> tuple[object, ...]:
    return GREETING, {"return": {}}, {"return": {"status": status, "running": status == "running"}}


def test_qemu_tells_whether_its_guest_stands_still(serve: Serve) -> None:
    assert guest_status(str(serve(*answers("paused")))) == "paused"
    assert guest_status(str(serve(*answers("running")))) == "running"


def test_events_come_between_answers(serve: Serve) -> None:
    event = json.dumps({"event": "STOP", "timestamp": {}}).encode() + b"\n"
    status = event + event + json.dumps({"return": {"status": "paused"}}).encode() + b"\n"
    assert guest_status(str(serve(GREETING, {"return": {}}, status))) == "paused"


def test_a_guest_that_runs_is_not_read(serve: Serve) -> None:
    path = serve(*answers("running"))
    with pytest.raises(TargetError, match="the guest runs"):
        open_dump(Path(f"qmp:{path}"))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ((b"HTTP/1.1 400\n",), "no QMP"),
        ((b"[]\n",), "no QMP"),
        (({"hello": 1},), "speaks no QMP"),
        ((b"",), "closed"),
        ((GREETING, {"error": {"desc": "no"}}), "refuses qmp_capabilities"),
    ],
)
def test_who_is_no_qemu(serve: Serve, said: tuple[object, ...], answer: str) -> None:
    path = serve(*said)
    with pytest.raises(TargetError, match=answer):
        guest_status(str(path))


def test_nobody_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["who", "--dump", f"qmp:{tmp_path}/none", "pfn:1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "No such file" in err
    with pytest.raises(TargetError, match="refused"):
        guest_status("127.0.0.1:1")


def test_a_file_may_be_called_like_a_guest(tmp_path: Path) -> None:
    assert is_guest(Path("qmp:/run/control"))
    assert not is_guest(Path("./x/qmp:1"))
    with pytest.raises(ImageError):
        open_dump(tmp_path / "qmp:1")


def test_the_running_kernel_may_not_show_its_memory(tmp_path: Path) -> None:
    with pytest.raises(MissingFeatureError, match="CONFIG_PROC_KCORE"):
        require_kcore(tmp_path / "kcore")
    (tmp_path / "kcore").write_bytes(b"\x7fELF")
    assert require_kcore(tmp_path / "kcore") is None


@pytest.mark.skipif(Path("/proc/kcore").exists(), reason="this kernel has a /proc/kcore")
def test_what_is_said_where_there_is_no_kcore(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fsck", "--dump", "/proc/kcore"]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "without --dump rmap asks /proc" in err


# Files that know a kernel.


def test_debug_files_are_told_by_what_they_begin_with(tmp_path: Path) -> None:
    begins = {
        "vmlinux": b"\x7fELF\x02", "btf": b"\x9f\xeb\x01\0", "syms": b'{"a": 1}', "note": b"hello",
    }  # fmt: skip
    for name, data in begins.items():
        (tmp_path / name).write_bytes(data)
    files = sort_debug_files([tmp_path / name for name in ("syms", "vmlinux", "btf")])
    assert files.dwarf == (tmp_path / "vmlinux",)
    assert (files.btf, files.symbols) == (tmp_path / "btf", tmp_path / "syms")
    with pytest.raises(ImageError, match="neither a vmlinux"):
        sort_debug_files([tmp_path / "note"])
    with pytest.raises(ImageError, match="No such file"):
        sort_debug_files([tmp_path / "none"])


def test_debug_files_need_a_dump(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["who", "--debug", "vmlinux", "1"]) == 2
    assert "--dump VMCORE" in capsys.readouterr()[1]
