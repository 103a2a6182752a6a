# SPDX-License-Identifier: GPL-2.0-only
"""Pages of a machine that is made of an image: whose they are, how often mapped, on which list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.image.flags import Kpf
from rmap.mm import bits
from rmap.mm.bits import (
    HPAGE_PMD_NR,
    LRU_ACTIVE,
    LRU_FILE,
    LRU_UNEVICTABLE,
    MAPPING_HANDLE_SHIFT,
    NR_LRU_LISTS,
)
from rmap.mm.mm_types import File, Kernel, Mm
from rmap.mm.page_alloc import link_free_pages
from rmap.model.load_anon import AnonLinks
from rmap.model.load_entries import Entries
from rmap.model.load_huge import HugeLoader, load_broken, mark_free_broken

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Flags that a page takes over from its image. What a moment's work sets is left out.
KEPT_FLAGS = (
    (Kpf.REFERENCED, bits.PG_referenced),
    (Kpf.UPTODATE, bits.PG_uptodate),
    (Kpf.DIRTY, bits.PG_dirty),
    (Kpf.ACTIVE, bits.PG_active),
    (Kpf.UNEVICTABLE, bits.PG_unevictable),
    (Kpf.SWAPBACKED, bits.PG_swapbacked),
    (Kpf.MLOCKED, bits.PG_mlocked),
    (Kpf.IDLE, bits.PG_idle),
)


@dataclass
class Filled:
    """What was made of the pages: pinned ones with how often, and how many are reserved."""

    pinned: dict[int, int]
    reserved: int


class PageFiller:
    """One filling of the memory map. `anon` and `files` are what pages may belong to."""

    def __init__(
        self, kernel: Kernel, image: MemoryImage, entries: Entries, anon: AnonLinks,
        files: Sequence[File], mms: Sequence[Mm], huge: HugeLoader,
    ) -> None:  # fmt: skip
        self.kernel = kernel
        self.huge = huge
        self.image = image
        self.mapped = entries.mapped
        self.anon = anon
        self.files = files
        self.mms = mms
        self.size = int(kernel.nr_pages) + 1
        self.known = image.pages["pfn"].astype(np.int64)
        self.kpf = np.zeros(self.size, np.uint64)
        self.kpf[self.known] = image.pages["flags"]

    def fill(self) -> Filled:
        """Set every column of the memory map."""
        counts = np.bincount(self.mapped.pfn, minlength=self.size).astype(np.int64)
        self._set_owners()
        cached = self._fill_caches()
        in_swap = self._fill_swap_cache()
        owned = (counts > 0) | cached | in_swap
        pinned = self._pins(counts, owned)
        refs = counts + cached + in_swap
        for page, count in pinned.items():
            refs[page] += count
        free = self._free_pages(owned)
        reserved = ~owned & ~free
        reserved[0] = False
        refs[reserved] = 1
        flags = np.zeros(self.size, np.uint32)
        for theirs, ours in KEPT_FLAGS:
            flags[owned & (self.kpf & np.uint64(theirs) != 0)] |= np.uint32(ours)
        flags[in_swap] |= np.uint32(bits.PG_swapcache | bits.PG_swapbacked)
        flags[reserved] = bits.PG_reserved
        flags[flags & np.uint32(bits.PG_unevictable) != 0] &= ~np.uint32(bits.PG_active)
        flags[counts == 0] &= ~np.uint32(bits.PG_mlocked)
        k = self.kernel
        load_broken(k, self.image, owned, refs, flags)
        mapcounts = self.huge.gather(counts, refs, flags)
        np.asarray(k.pg_mapcount)[:] = mapcounts - 1
        np.asarray(k.pg_refcount)[:] = refs
        np.asarray(k.pg_flags)[:] = flags
        self._charge(owned)
        self.huge.name()
        listed = owned.copy()
        listed[self.huge.tails] = False
        self._link_lists(np.flatnonzero(listed))
        self._link_free(np.flatnonzero(free))
        mark_free_broken(k, self.image)
        self.huge.tie()
        return Filled(pinned, int(reserved.sum()))

    # ------------------------------------------------------------ whose they are

    def _set_owners(self) -> None:
        """Set mapping and index of pages by the entries that map them."""
        mapping, index = np.asarray(self.kernel.pg_mapping), np.asarray(self.kernel.pg_index)
        mapping[:], index[:] = 0, 0
        mapped = self.mapped
        index[mapped.pfn] = self.anon.pgoff[mapped.vma] + mapped.place
        anon = mapped.where(mapped.anon)
        mapping[anon.pfn] = self.anon.words(self.image, anon)
        of_file = mapped.where(~mapped.anon & (mapped.file >= 0))
        handles = np.array([file.f_mapping.handle for file in self.files] + [0], np.int64)
        mapping[of_file.pfn] = handles[of_file.file] << MAPPING_HANDLE_SHIFT

    def _fill_caches(self) -> Bools:
        """Put pages into the page caches of their files; which were put."""
        cached = np.zeros(self.size, np.bool_)
        mapped = self.mapped.where(~self.mapped.anon & (self.mapped.file >= 0))
        pfn, first = np.unique(mapped.pfn, return_index=True)
        index = self.anon.pgoff[mapped.vma[first]] + mapped.place[first]
        self._cache(pfn, mapped.file[first], index, cached)
        pages = self.image.pages
        if "file" in pages and "index" in pages:
            rows = np.flatnonzero((pages["file"] >= 0) & ~cached[self.known])
            self._cache(
                self.known[rows], pages["file"][rows].astype(np.int64),
                pages["index"][rows].astype(np.int64), cached,
            )  # fmt: skip
        return cached

    def _cache(self, pfns: I64, files: I64, index: I64, cached: Bools) -> None:
        k = self.kernel
        for pfn, number, at in zip(pfns.tolist(), files.tolist(), index.tolist(), strict=True):
            mapping = self.files[number].f_mapping
            if at not in mapping.i_pages:
                mapping.i_pages[at] = pfn
                mapping.nrpages += 1
                k.pg_mapping[pfn] = mapping.handle << MAPPING_HANDLE_SHIFT
                k.pg_index[pfn] = at
                cached[pfn] = True

    def _fill_swap_cache(self) -> Bools:
        """Put pages into the swap cache, if the image tells for which slots."""
        found = np.zeros(self.size, np.bool_)
        slots = self.image.swap_slots
        for row in np.flatnonzero(slots["cache_pfn"] > 0).tolist():
            entry, pfn = int(slots["entry"][row]), int(slots["cache_pfn"][row])
            area, slot = self.kernel.swap_areas[entry & 31], entry >> 5
            area.cache[slot] = pfn
            area.swap_map[slot] = bits.SWAP_HAS_CACHE
            area.inuse += 1
            self.kernel.pg_private[pfn] = entry
            found[pfn] = True
        return found

    # ------------------------------------------------------------ whose else

    def _pins(self, counts: I64, owned: Bools) -> dict[int, int]:
        """Pages with mappings that were not seen: how many, by page."""
        told = self.image.pages["mapcount"].astype(np.int64)
        unseen = told - counts[self.known]
        rows = np.flatnonzero((unseen > 0) & owned[self.known])
        return dict(zip(self.known[rows].tolist(), unseen[rows].tolist(), strict=True))

    def _free_pages(self, owned: Bools) -> Bools:
        free = ~owned & (self.kpf & np.uint64(Kpf.BUDDY) != 0)
        free[0] = False
        return free

    def _charge(self, owned: Bools) -> None:
        """Charge each page that is mapped to the cgroup of a process that maps it."""
        owner = np.asarray(self.kernel.pg_memcg)
        owner[:] = 0
        groups = np.array([mm.memcg.ident for mm in self.mms] + [0], np.int64)
        # In reverse, so that of several the one of the lowest number stays.
        mapped = self.mapped.where(np.arange(len(self.mapped))[::-1])
        owner[mapped.pfn] = groups[mapped.mm]

    # ------------------------------------------------------------ lists

    def _link_lists(self, pages: I64) -> None:
        """Put pages on the LRU lists that their flags say, lower frame numbers nearer the tail."""
        k = self.kernel
        flags = np.asarray(k.pg_flags)
        flags[pages] |= np.uint32(bits.PG_lru)
        backed = flags[pages] & np.uint32(bits.PG_swapbacked) != 0
        active = flags[pages] & np.uint32(bits.PG_active) != 0
        lru = np.where(backed, 0, LRU_FILE) + np.where(active, LRU_ACTIVE, 0)
        lru[flags[pages] & np.uint32(bits.PG_unevictable) != 0] = LRU_UNEVICTABLE
        owner = np.asarray(k.pg_memcg)[pages]
        for memcg in k.memcgs:
            for number in range(NR_LRU_LISTS):
                listed = pages[(owner == memcg.ident) & (lru == number)][::-1]
                huge = np.isin(listed, self.huge.heads)
                memcg.lruvec.size[number] = len(listed) + int(huge.sum()) * (HPAGE_PMD_NR - 1)
                if number == LRU_UNEVICTABLE and k.profile.mlock_counts:
                    continue
                memcg.lruvec.head[number] = int(listed[0]) if len(listed) else 0
                memcg.lruvec.tail[number] = int(listed[-1]) if len(listed) else 0
                np.asarray(k.pg_lru_next)[listed] = np.append(listed[1:], 0)[: len(listed)]
                np.asarray(k.pg_lru_prev)[listed] = np.append(0, listed[:-1])[: len(listed)]

    def _link_free(self, pages: I64) -> None:
        """Put the free pages on the allocator's stack, the lowest on top."""
        link_free_pages(self.kernel, pages.tolist())
