# SPDX-License-Identifier: GPL-2.0-only
"""The laboratory's own parts, without a guest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.btftrim import trim
from lab.initramfs import Archive
from lab.packages import Kernel, LabError, modules, newest, run
from lab.truth import read_truth, spread
from rmap.source.dump.btf import Btf

TRUTH = """\
P 1 S init
v 8 4 0 0 00400000-00402000 r-xp 00001000 08:02 9   /bin/a file (deleted)| rd ex mr
p 400000 10 2 143
s 402000 4000 2 81
P 7 R workload recorder
f 10 2 1 800
E
"""


def test_reads_what_a_guest_wrote(tmp_path: Path) -> None:
    path = tmp_path / "truth.log"
    path.write_text(TRUTH)
    truth = read_truth(path)
    first, recorder = truth.processes
    (vma,) = first.vmas
    assert (vma.start, vma.end, vma.offset, vma.device) == (0x400000, 0x402000, 4096, 8 << 20 | 2)
    assert (vma.name, vma.flags, vma.rss) == ("/bin/a file (deleted)", ("rd", "ex", "mr"), 8192)
    assert first.mappings.tolist() == [[0x400000, 0x10, 0x143], [0x401000, 0x11, 0x143]]
    # Entries of a swap area ascend by their offset, which stands above five bits of type.
    assert first.swap_entries[:, 1].tolist() == [0x4000, 0x4020]
    assert recorder.recorder
    assert truth.others == [first]
    assert truth.frames.tolist() == [0x10, 0x11]


def test_an_account_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.log"
    path.write_text(TRUTH.removesuffix("E\n"))
    with pytest.raises(LabError, match="cut short"):
        read_truth(path)


def test_runs_are_spread_out() -> None:
    assert spread([], 1).shape == (0, 3)
    assert spread([(0, 5, 3, 1)], 32)[:, 1].tolist() == [5, 37, 69]


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    archive = Archive()
    archive.add("bin", 0o40755, b"")
    archive.add("bin/tool", 0o100755, b"odd")
    data = archive.finish()
    assert data.startswith(b"070701")
    assert len(data) % 4 == 0
    try:
        listed = subprocess.run(["cpio", "-t"], input=data, capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no cpio here")
    assert listed.stdout.split() == [b"bin", b"bin/tool"]


def test_modules_load_after_those_that_they_need(tmp_path: Path) -> None:
    for name, depends in (("a", b"b_c"), ("b-c", b"d"), ("d", b""), ("e", b"")):
        info = b"\0name=x\0depends=" + depends + b"\0vermagic=1\0"
        (tmp_path / f"{name}.ko").write_bytes(b"\x7fELF" + info)
    kernel = Kernel("package", "1", tmp_path, tmp_path)
    assert [name for name, _ in modules(kernel, ("a", "built_in", "d"))] == ["d", "b_c", "a"]


def test_the_newest_kernel_is_so_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "".join(
        f"linux-image-6.1.0-{number}-cloud-amd64-unsigned - Linux 6.1\n" for number in (9, 56, 10)
    )
    monkeypatch.setattr("lab.packages.run", lambda *command: listing)
    assert newest("6.1") == "linux-image-6.1.0-56-cloud-amd64-unsigned"
    monkeypatch.setattr("lab.packages.run", lambda *command: "")
    with pytest.raises(LabError, match=r"knows no linux-image-6\.12"):
        newest("6.12")


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(LabError, match="no-such-command"):
        run("no-such-command")


def test_trimmed_types_are_what_they_were(reduced: object, tmp_path: Path) -> None:
    """Trimming what was trimmed to one struct keeps that struct, and what it holds."""
    from .reduced import Reduced

    assert isinstance(reduced, Reduced)
    whole = Btf(reduced.debug[0].read_bytes())
    from rmap.source.dump.btf import STRUCT

    number = whole.find(STRUCT, "anon_vma")
    assert number is not None
    small = Btf(trim(whole, [number]))
    again = small.find(STRUCT, "anon_vma")
    assert again is not None
    assert len(small) < len(whole)
    assert small.entry(again).size == whole.entry(number).size

    def members(btf: Btf, number: int) -> list[tuple[str, int]]:
        return [(btf.string(name), offset) for name, _, offset in btf.parts(number, "<III")]

    assert members(small, again) == members(whole, number)
    # A struct that is held by value is whole, one that is pointed to is declared.
    assert small.find(STRUCT, "rw_semaphore") is not None
    assert small.find(STRUCT, "task_struct") is None
