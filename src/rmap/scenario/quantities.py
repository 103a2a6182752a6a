# SPDX-License-Identifier: GPL-2.0-only
"""What ``expect``, ``if`` and ``let`` can ask of the machine; `rmap.scenario.measure` answers."""

from __future__ import annotations

from rmap.scenario.grammar import CGROUP, FILE, OFFSET, PROCESS, REGION, Kind, Param, Spec, one_of

#: Flags of a page that `flag` asks for; the bits are those of `rmap.mm.bits` (``PG_*``).
PAGE_FLAGS = (
    "locked", "referenced", "uptodate", "dirty", "lru", "active", "unevictable", "writeback",
    "reclaim", "swapbacked", "swapcache", "mlocked", "young", "idle", "hwpoison",
)  # fmt: skip

#: What became of the pages of a reclaim, by the names of the model's result.
RECLAIM_COUNTS = (
    "scanned", "reclaimed", "activated", "kept", "referenced", "unmap_fail", "lazyfreed",
    "swapped", "written", "deactivated", "rotated",
)  # fmt: skip

KSM_COUNTERS = (
    "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile", "full_scans",
    "stable_node_chains", "stable_node_dups",
)  # fmt: skip

_P = Param("process", PROCESS)
_SPOT = (_P, Param("region", REGION), Param("off", OFFSET))
_GROUP = Param("cgroup", CGROUP)


def _spec(name: str, summary: str, *params: Param) -> Spec:
    return Spec(name, summary, params, operates=False)


_OF_A_PAGE = (
    _spec("mapped", "1 if a page is mapped there, else 0", *_SPOT),
    _spec("page", "its frame number, 0 if none", *_SPOT),
    _spec("mapcount", "page_mapcount() of it", *_SPOT),
    _spec("refcount", "its _refcount", *_SPOT),
    _spec("index", "page->index of it", *_SPOT),
    _spec("owner", "number of the anon_vma that page->mapping names, 0 if none", *_SPOT),
    _spec("value", "the 32-bit number at its start, 0 if no page is there", *_SPOT),
    _spec("flag", "1 if it has the flag", *_SPOT, Param("flag", Kind("FLAG", one_of(
        "page flag", PAGE_FLAGS)))),
    _spec("idle", "1 if it is idle: not used since it was marked", *_SPOT),
    _spec("zero", "1 if the zero page is mapped there", *_SPOT),
    _spec("swapped", "1 if the page-table entry holds a swap entry", *_SPOT),
    _spec("writable", "1 if the entry permits writes", *_SPOT),
    _spec("dirty", "1 if the entry is dirty", *_SPOT),
    _spec("young", "1 if the entry was used", *_SPOT),
    _spec("order", "log2 of the pages that the entry maps: 0, 9 or 18", *_SPOT),
    _spec("compound", "pages of the compound page that it is part of, 1 if of none", *_SPOT),
    _spec("merged", "1 if KSM merged it", *_SPOT),
    _spec("broken", "1 if the entry is that of a page whose memory broke", *_SPOT),
    _spec("indevice", "1 if the page is in a device's memory", *_SPOT),
    _spec("visited", "VMAs that a walk of its reverse map visits", *_SPOT),
    _spec("found", "VMAs in which that walk finds it mapped", *_SPOT),
)  # fmt: skip

_OF_A_VMA = (
    _spec("anon_vma", "number of vma->anon_vma, 0 if none", *_SPOT),
    _spec("root", "number of its root", *_SPOT),
    _spec("chain", "length of vma->anon_vma_chain", *_SPOT),
    _spec("degree", "degree of vma->anon_vma (v4.18)", *_SPOT),
    _spec("children", "its num_children (v6.0)", *_SPOT),
    _spec("active_vmas", "its num_active_vmas (v6.0)", *_SPOT),
    _spec("anon_refcount", "its refcount", *_SPOT),
    _spec("vma_pages", "length of the VMA in pages, 0 if there is none", *_SPOT),
)

_OF_A_PROCESS = (
    _spec("exists", "1 if the process lives", _P),
    _spec("vma_count", "number of VMAs", _P),
    _spec("rss", "pages in memory", _P),
    _spec("anon", "anonymous ones", _P),
    _spec("file", "pages of files", _P),
    _spec("shmem", "pages of shared memory", _P),
    _spec("swapents", "swap entries", _P),
    _spec("locked", "locked pages (VmLck)", _P),
)

_OF_THE_MACHINE = (
    _spec("processes", "living processes"),
    _spec("free", "free pages"),
    _spec("anon_vmas", "anon_vmas that are allocated"),
    _spec("anon_vma_chains", "anon_vma_chains that are linked"),
    _spec("warnings", "warnings so far"),
    _spec("violations", "invariants that do not hold now"),
    _spec("stat", "a statistic by its name in the report", Param("name", Kind("NAME", str))),
    _spec("usage", "pages charged to a cgroup", _GROUP),
    _spec("limit", "its limit in pages, -1 if none", _GROUP),
    _spec("cached", "pages of a file in the page cache", Param("file", FILE)),
    _spec(
        "outcome",
        "a count of the last reclaim",
        Param("name", Kind("NAME", one_of("count of a reclaim", RECLAIM_COUNTS))),
    ),
    _spec(
        "ksm",
        "a counter of /sys/kernel/mm/ksm",
        Param("name", Kind("NAME", one_of("counter of KSM", KSM_COUNTERS))),
    ),
    _spec("hugetlb_pages", "huge pages of 2 MiB in the pool"),
    _spec("hugetlb_free", "those of them that are free"),
    _spec("hugetlb_reserved", "those of them that are promised"),
    _spec("quirk", "1 if the profile has this quirk", Param("name", Kind("NAME", str))),
)

GROUPS: dict[str, tuple[Spec, ...]] = {
    "Of the page at OFF of REGION in PROCESS": _OF_A_PAGE,
    "Of the VMA there": _OF_A_VMA,
    "Of a process": _OF_A_PROCESS,
    "Of the machine": _OF_THE_MACHINE,
}
QUANTITIES: dict[str, Spec] = {spec.name: spec for specs in GROUPS.values() for spec in specs}
