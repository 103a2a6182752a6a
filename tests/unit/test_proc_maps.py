# SPDX-License-Identifier: GPL-2.0-only
"""Lines of maps, of every documented form, and of none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.errors import RmapError
from rmap.image.flags import Vm, permissions
from rmap.source.proc.maps import (
    decode_text,
    parse_line,
    parse_maps,
    parse_vm_flags,
    vma_ranges,
)

SPECIAL_NAMES = [
    b"",
    b"[heap]",
    b"[stack]",
    b"[vdso]",
    b"[vvar]",
    b"[vvar_vclock]",
    b"[uprobes]",
    b"[anon:a name]",
    b"[anon:123]",
]
KERNEL_FILES = [b"/dev/zero", b"/SYSV00000000", b"/memfd:x y", b"anon_inode:[perf_event]"]
#: Any bytes but the null; the kernel writes a newline as \012, and so a name must not hold that.
names = st.binary(min_size=1, max_size=40).filter(lambda b: b"\0" not in b and b"\\012" not in b)
paths = st.one_of(
    names.map(lambda name: b"/" + name.lstrip(b"/")),
    st.sampled_from([b"/[heap]", b"/1000-2000", b"/7 rw-p", b"/a\nb", b"/x (deleted)"]),
    st.sampled_from(KERNEL_FILES),
)


@dataclass(frozen=True)
class Vma:
    """What the kernel knows of a VMA, and the line it prints (``show_map_vma``)."""

    start: int
    end: int
    letters: str
    offset: int
    major: int
    minor: int
    inode: int
    name: bytes
    deleted: bool

    def line(self) -> bytes:
        head = (
            f"{self.start:08x}-{self.end:08x} {self.letters} {self.offset:08x} "
            f"{self.major:02x}:{self.minor:02x} {self.inode} "
        ).encode()
        if not self.name:
            return head
        shown = self.name.replace(b"\n", b"\\012") + (b" (deleted)" if self.deleted else b"")
        return head.ljust(73) + shown


@st.composite
def vmas(draw: st.DrawFn) -> Vma:
    start = draw(st.integers(0, (1 << 47) - 1)) << 12
    size = draw(st.integers(1, 1 << 30)) << 12
    of_file = draw(st.booleans())
    letters = "".join(draw(st.sampled_from(pair)) for pair in ("r-", "w-", "x-", "ps"))
    return Vma(
        start=start,
        end=start + size,
        letters=letters,
        offset=draw(st.integers(0, (1 << 52) - 1)) << 12 if of_file else 0,
        major=draw(st.integers(0, 0xFFF)) if of_file else 0,
        minor=draw(st.integers(1, 0xFFFFF)) if of_file else 0,
        inode=draw(st.integers(0, (1 << 64) - 1)) if of_file else 0,
        name=draw(paths) if of_file else draw(st.sampled_from(SPECIAL_NAMES)),
        deleted=of_file and draw(st.booleans()),
    )


@given(vmas())
def test_what_the_kernel_prints_is_what_is_read(vma: Vma) -> None:
    line = parse_line(vma.line())

    assert (line.start, line.end, line.offset) == (vma.start, vma.end, vma.offset)
    assert permissions(line.flags) == vma.letters
    assert (line.device, line.inode) == (vma.major << 20 | vma.minor, vma.inode)
    if vma.minor:
        # A name that ends like a deleted one's cannot be told apart by its line alone.
        deleted = vma.deleted or vma.name.endswith(b" (deleted)")
        path = vma.name if vma.deleted else vma.name.removesuffix(b" (deleted)")
        assert (line.path, line.name, line.deleted) == (decode_text(path), "", deleted)
    else:
        assert (line.path, line.name, line.deleted) == ("", decode_text(vma.name), False)


@given(st.lists(vmas(), max_size=8))
def test_a_whole_file_has_the_same_lines_as_each_alone(some: list[Vma]) -> None:
    text = b"".join(vma.line() + b"\n" for vma in some)

    assert parse_maps(text) == [parse_line(vma.line()) for vma in some]
    assert parse_maps(text, {}) == parse_maps(text)
    assert vma_ranges(text) == [(vma.start, vma.end) for vma in some]


def read_or_refused(text: bytes) -> str | None:
    """What the parser says of a text that it refuses; None if it reads it."""
    try:
        assert all(line.start < 1 << 63 for line in parse_maps(text))
    except RmapError as error:
        return str(error)
    return None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_clearly_or_read(text: bytes) -> None:
    refused = read_or_refused(text)
    assert refused is None or ("maps" in refused and "\n" not in refused)
    assert all(start < 1 << 63 for start, _ in vma_ranges(text))
    assert isinstance(parse_vm_flags(text), dict)


@given(vmas(), st.data())
def test_a_damaged_line_is_refused_clearly_or_read(vma: Vma, data: st.DataObject) -> None:
    whole = vma.line()
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    refused = read_or_refused(damaged)
    assert refused is None or "maps" in refused


def test_the_kernels_own_page_is_left_out() -> None:
    text = (
        b"7ffd0a9c0000-7ffd0a9c2000 r-xp 00000000 00:00 0                          [vdso]\n"
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
    )
    assert [line.name for line in parse_maps(text)] == ["[vdso]"]
    assert vma_ranges(text) == [(0x7FFD0A9C0000, 0x7FFD0A9C2000)]


@pytest.mark.parametrize(
    ("shown", "path", "name", "deleted"),
    [
        (b"/dev/zero (deleted)", "/dev/zero", "", True),
        (b"[anon_shmem:a b]", "/dev/zero", "[anon_shmem:a b]", True),
        (b"/[heap]", "/[heap]", "", False),
        (b"/caf\xc3\xa9 \xff", "/café \\xff", "", False),
    ],
)
def test_names_with_an_inode(shown: bytes, path: str, name: str, deleted: bool) -> None:
    line = parse_line(b"1000-2000 rw-s 00000000 00:01 42 " + shown)
    assert (line.path, line.name, line.deleted) == (path, name, deleted)
    assert line.flags & (Vm.SHARED | Vm.MAYSHARE) == Vm.SHARED | Vm.MAYSHARE


def test_exact_flags_come_from_smaps() -> None:
    smaps = (
        b"1000-2000 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr mr mw me ac zz \n"
        b"3000-4000 r--s 00000000 00:01 7 /VmFlags: wr\nVmFlags: rd sh ms \n"
    )
    exact = parse_vm_flags(smaps)
    assert set(exact) == {0x1000, 0x3000}
    assert exact[0x1000] & (Vm.WRITE | Vm.ACCOUNT) == Vm.WRITE | Vm.ACCOUNT
    assert exact[0x3000] == Vm.READ | Vm.SHARED | Vm.MAYSHARE
