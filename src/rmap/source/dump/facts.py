# SPDX-License-Identifier: GPL-2.0-only
"""What is so in the kernel of a dump, found out once, from its types and its VMCOREINFO.

Nothing is decided by version: each question is whether there is a member, an enumerator or a line
of VMCOREINFO.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rmap.errors import ImageError
from rmap.source.dump.records import member_offset

if TYPE_CHECKING:
    from drgn import Program

#: The tag that says what a typed page is stands in the top byte of page_type since 6.12; before,
#: types are bits that are cleared.
_TYPE_SHIFT = 24
_FLAG_BITS = 64
_TYPE_BASE = 0xF000_0000
#: Bits that are cleared in pages of a type, where nothing tells (until 6.10).
_CLEARED = {"buddy": 0x80, "offline": 0x100, "table": 0x200}
#: Beyond all frames; a huge zero page that there is not (yet) has all ones.
_NO_FRAME = 1 << 52


@dataclass(frozen=True)
class Facts:
    """Answers about the kernel of a dump."""

    program: Program

    def constant(self, name: str) -> int | None:
        """The value of an enumerator, ``None`` if there is none of that name."""
        try:
            return int(self.program.constant(name).value_())
        except LookupError:
            return None

    def flag(self, name: str) -> int:
        """The bit of a page flag as a mask; 0 if this kernel has none of that name."""
        number = self.constant(name)
        # In 6.11 types of pages are called as flags were: these are masks, and large.
        return 0 if number is None or number >= _FLAG_BITS else 1 << number

    def page_type(self, name: str) -> tuple[int, int] | None:
        """How pages of a type are told by the word that counts mappings of others.

        Returns a mask, and what is under it then; ``None`` if this kernel has no such type.
        """
        number = self.constant(f"PGTY_{name}")
        if number is not None:
            return 0xFF << _TYPE_SHIFT, number << _TYPE_SHIFT
        bit = self.constant(f"PG_{name}") or 0
        if bit < _FLAG_BITS:
            # Until 6.10 types were macros, some of which VMCOREINFO has: all bits but one.
            told = self.vmcoreinfo.get(f"NUMBER(PAGE_{name.upper()}_MAPCOUNT_VALUE)")
            bit = ~int(told, 0) & 0xFFFF_FFFF if told is not None else _CLEARED.get(name, 0)
        base = self.constant("PAGE_TYPE_BASE") or _TYPE_BASE
        return (base | bit, base) if bit else None

    @cached_property
    def is_running(self) -> bool:
        """Whether it is the kernel that runs here, and changes while it is read."""
        import drgn

        here = drgn.ProgramFlags.IS_LIVE | drgn.ProgramFlags.IS_LOCAL
        return self.program.flags & here == here

    @cached_property
    def vmcoreinfo(self) -> dict[str, str]:
        """The lines of VMCOREINFO: ``NUMBER(phys_base)`` to its value."""
        note = self.program["VMCOREINFO"].string_().decode("ascii", "replace")
        lines = (line.partition("=") for line in note.splitlines())
        return {name: value for name, equals, value in lines if equals}

    @cached_property
    def release(self) -> str:
        """The release, as uname prints it."""
        return str(self.program["UTS_RELEASE"].string_().decode("utf-8", "replace"))

    @cached_property
    def levels(self) -> int:
        """Levels of page tables."""
        return 5 if self.vmcoreinfo.get("NUMBER(pgtable_l5_enabled)") == "1" else 4

    @cached_property
    def page_size(self) -> int:
        """Bytes of a page. Raises `ImageError` if VMCOREINFO does not say 4096."""
        size = int(self.vmcoreinfo.get("PAGESIZE", "0"))
        if size != 4096:
            raise ImageError(f"its pages have {size} bytes; rmap reads x86-64 only, 4096")
        return size

    def has(self, kind: str, path: str) -> bool:
        """Whether a struct has a member."""
        return member_offset(self.program, kind, path) is not None

    @cached_property
    def hugetlb_index_in_base_pages(self) -> bool | None:
        """Whether page->index of hugetlb counts pages of 4 KiB, as since 6.7.

        The function that made up for the difference went away with it. ``None`` if the symbols are
        a choice of the kernel's, in which nothing says so.
        """
        if any(map(self.has_symbol, ("hugetlb_basepage_index", "__basepage_index"))):
            return False
        return True if self.has_symbol("hugetlb_fault") else None

    def has_symbol(self, name: str) -> bool:
        """Whether the kernel has a function or variable of that name."""
        try:
            self.program.symbol(name)
        except LookupError:
            return False
        return True

    @cached_property
    def configuration(self) -> bytes:
        """Lines of the kernel's .config that decide what types of swap entries there are.

        Each option is known by something that is there with it and not without it.
        """
        device = ("make_device_exclusive_range", "make_device_exclusive",
                  "device_private_entry_fault")  # fmt: skip
        there = {
            "CONFIG_DEVICE_PRIVATE": any(map(self.has_symbol, device)),
            "CONFIG_MIGRATION": self.has_symbol("migrate_pages"),
            "CONFIG_MEMORY_FAILURE": self.constant("PG_hwpoison") is not None,
            # Protecting memory of files against writes is what markers were made for.
            "CONFIG_PTE_MARKER": self.has_symbol("uffd_wp_range"),
        }
        return "".join(f"{option}=y\n" for option, is_so in there.items() if is_so).encode()

    @cached_property
    def hugetlb_destructor(self) -> int | None:
        """The number of hugetlb's destructor, where compound pages have one."""
        return self.constant("HUGETLB_PAGE_DTOR")

    @cached_property
    def has_double_map(self) -> bool:
        """Whether huge pages that PMDs and PTEs map count their sub pages once more (to 6.1)."""
        return self.constant("PG_double_map") is not None

    @cached_property
    def compound_mapcount_path(self) -> str:
        """Where the first tail page counts mappings of the whole."""
        for path in ("_entire_mapcount.counter", "compound_mapcount.counter"):
            kind = "struct folio" if path.startswith("_entire") else "struct page"
            if self.has(kind, path):
                return path
        raise ImageError("neither struct folio nor struct page counts mappings of huge pages")

    @cached_property
    def tail_flags_mean_nothing(self) -> bool:
        """Whether the flags of tail pages hold other things (since 6.6), among them the order."""
        return self.has("struct folio", "_flags_1") and not (
            self.has("struct folio", "_folio_order") or self.has("struct page", "compound_order")
        )

    @cached_property
    def zero_pages(self) -> list[tuple[int, int]]:
        """First frame and number of the pages that stand for memory never written to."""
        import drgn

        found = []
        for name, count in (("zero_pfn", 1), ("huge_zero_pfn", 512)):
            try:
                value = int(self.program[name].value_())
            except (LookupError, drgn.FaultError):
                continue
            if 0 < value < _NO_FRAME:
                found.append((value, count))
        return found

    def object(self, name: str) -> Any | None:
        """A global variable, ``None`` if it is not there."""
        try:
            return self.program[name]
        except LookupError:
            return None
