# SPDX-License-Identifier: GPL-2.0-only
"""What physical pages are, said for a byte of them: for texts that were found in memory.

Each page is explained once, however many texts lie in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.kinds import KIND_NAMES, Kind, classify
from rmap.query.who import frame_entries

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

#: What pages that nobody maps are called where the name of their kind says too little.
_UNMAPPED = {
    Kind.PGTABLE: "page table", Kind.RESERVED: "kernel, reserved", Kind.OTHER: "kernel",
    Kind.HWPOISON: "broken memory",
}  # fmt: skip
NO_MEMORY = "no memory"
NOT_IN_DUMP = "not in the dump"
_OF_FILES = (Kind.FILE, Kind.SHMEM, Kind.HUGETLB)


@dataclass(frozen=True, slots=True)
class SpotMapping:
    """One mapping of a page: who, and where the page begins there.

    ``name`` is that of the VMA: a path, ``[heap]``, or nothing.
    """

    pids: tuple[int, ...]
    comm: str
    address: int
    name: str


@dataclass(frozen=True, slots=True)
class Spot:
    """A physical page: what it is, the file and the place there that it holds, its mappings.

    ``path`` is "" and ``offset`` -1 for a page of no file, or of one that is not known.
    """

    kind: str
    path: str
    offset: int
    mappings: tuple[SpotMapping, ...]


class Spots:
    """Explains pages of an image."""

    def __init__(self, image: MemoryImage) -> None:
        self.image = image
        self._has_files = "file" in image.pages and "index" in image.pages

    def explain(self, pfns: U64) -> list[Spot]:
        """Say what each of some page frames is; they ascend, and each is there once."""
        rows = self.image.find_pages(pfns)
        known = rows >= 0
        kinds = np.full(len(pfns), Kind.OTHER, np.uint8)
        kinds[known] = classify(self.image.pages["flags"][rows[known]])
        mappings = self._mappings(pfns)
        return [
            self._spot(int(pfn), row, Kind(kind), mappings.get(at, ()))
            for at, (pfn, row, kind) in enumerate(
                zip(pfns.tolist(), rows.tolist(), kinds.tolist(), strict=True)
            )
        ]

    def _mappings(self, pfns: U64) -> dict[int, Sequence[tuple[int, int, int]]]:
        """By the number of the page: (pte row, address, VMA) of all that map it."""
        owner, ptes = frame_entries(self.image, pfns)
        table = self.image.ptes
        into = (pfns[owner] - table["pfn"][ptes]) * np.uint64(self.image.page_size)
        address = table["address"][ptes] + into
        vmas = self.image.vmas_of_ptes(ptes)
        found: dict[int, list[tuple[int, int, int]]] = {}
        columns = (owner, ptes, address, vmas)
        for page, *rest in zip(*(column.tolist() for column in columns), strict=True):
            found.setdefault(page, []).append((rest[0], rest[1], rest[2]))
        return dict(found)

    def _spot(
        self, pfn: int, row: int, kind: Kind, mappings: Sequence[tuple[int, int, int]]
    ) -> Spot:
        shown = tuple(self._mapping(*mapping) for mapping in mappings)
        if row < 0:
            what = NOT_IN_DUMP if self._is_ram(pfn) else NO_MEMORY
            return Spot(KIND_NAMES[kind] if shown else what, "", -1, shown)
        path, offset = self._place(row, kind, mappings)
        if shown or kind not in _UNMAPPED:
            name = KIND_NAMES[kind].replace("_", " ")
        else:
            name = "free" if kind is Kind.OTHER and self._is_held(row) else _UNMAPPED[kind]
        return Spot(name, path, offset, shown)

    def _is_ram(self, pfn: int) -> bool:
        ram = self.image.ram
        return bool(((ram["start_pfn"] <= pfn) & (pfn < ram["end_pfn"])).any())

    def _is_held(self, row: int) -> bool:
        """Whether a page without flags is free, in the list of a CPU: nobody refers to it."""
        from rmap.query.kinds import is_large

        pages = self.image.pages
        if "refcount" not in pages or int(pages["refcount"][row]) != 0:
            return False
        return not bool(is_large(pages["flags"][row : row + 1])[0])

    def _mapping(self, pte: int, address: int, vma: int) -> SpotMapping:
        image = self.image
        users = image.processes_of_mm.get(int(image.ptes["mm"][pte]), [])
        processes, vmas = image.processes, image.vmas
        return SpotMapping(
            pids=tuple(int(processes["pid"][user]) for user in users),
            comm=str(processes["comm"][users[0]]) if users else "",
            address=address,
            name=(str(vmas["path"][vma]) or str(vmas["name"][vma])) if vma >= 0 else "",
        )

    def _place(
        self, row: int, kind: Kind, mappings: Sequence[tuple[int, int, int]]
    ) -> tuple[str, int]:
        """The file that a page is of, and where in it the page begins."""
        if kind not in _OF_FILES:
            return "", -1
        image, size = self.image, self.image.page_size
        if self._has_files and int(image.pages["file"][row]) >= 0:
            path = str(image.files["path"][int(image.pages["file"][row])])
            return path or "(no name)", int(image.pages["index"][row]) * size
        for _, address, vma in mappings:
            if vma >= 0 and int(image.vmas["file"][vma]) >= 0:
                start = int(image.vmas["start"][vma])
                offset = int(image.vmas["pgoff"][vma]) * size + address - start
                return str(image.vmas["path"][vma]), offset
        return "", -1
