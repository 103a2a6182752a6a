# SPDX-License-Identifier: GPL-2.0-only
"""The quantities of `rmap.scenario.quantities`, measured on a machine. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable

from rmap.mm import bits, content
from rmap.mm.bits import MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.mm.page import (
    PageKsm,
    compound_head,
    compound_order,
    page_count,
    page_mapcount,
    page_to_pgoff,
)
from rmap.mm.pgtable import (
    is_device_private_entry,
    is_hwpoison_entry,
    is_swap_pte,
    non_swap_entry,
    pte_dirty,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
    pte_write,
    pte_young,
)
from rmap.mm.profile import QUIRKS
from rmap.model import Process
from rmap.scenario.errors import WordError
from rmap.scenario.grammar import Values
from rmap.scenario.state import State

_ANON_TAG, _TAGS, _SHIFT = bits.PAGE_MAPPING_ANON, bits.PAGE_MAPPING_FLAGS, 2


# ------------------------------------------------------------ of a page


def _where(state: State, v: Values) -> tuple[Process, int]:
    process = state.process(v["process"])
    return process, state.address(process, v["region"], v["off"])


def _pte(state: State, v: Values) -> int:
    process, address = _where(state, v)
    return process.pte(address)


def _page(state: State, v: Values) -> int:
    """The frame of the page there, 0 if none (the zero page is none)."""
    pte = _pte(state, v)
    page = int(pte_pfn(pte)) if pte_present(pte) else 0
    return 0 if is_zero_frame(state.machine.kernel, page) else page


def is_zero_frame(k: Kernel, page: int) -> bool:
    """Whether it is the page of zeros, or part of the huge one."""
    huge = int(k.huge_zero_page)
    return bool(page) and (page == k.zero_page or (bool(huge) and huge <= page < huge + 512))


def _of_page(ask: Callable[[Kernel, int], int]) -> Callable[[State, Values], int]:
    """What a function of the kernel says of the page."""

    def measure(state: State, v: Values) -> int:
        page = _page(state, v)
        return int(ask(state.machine.kernel, page)) if page else 0

    return measure


def _compound(k: Kernel, page: int) -> int:
    return 1 << int(compound_order(k, compound_head(k, page)))


def owner_of(state: State, page: int) -> int:
    """The number of the anon_vma that page->mapping names, 0 if it names none."""
    kernel = state.machine.kernel
    mapping = int(kernel.pg_mapping[compound_head(kernel, page)]) if page else 0
    return mapping >> _SHIFT if mapping & _TAGS == _ANON_TAG else 0


def value_of(state: State, page: int) -> int:
    """The 32-bit number at the start of a page."""
    return int.from_bytes(content.page_read(state.machine.kernel, page, 0, 4), "little")


def _value(state: State, v: Values) -> int:
    page = _page(state, v)
    return value_of(state, page) if page else 0


def _flag(state: State, v: Values) -> int:
    page = _page(state, v)
    bit = getattr(bits, f"PG_{v['flag']}")
    return int(bool(page and state.machine.kernel.pg_flags[page] & bit))


def _idle(state: State, v: Values) -> int:
    page = _page(state, v)
    return int(bool(page and state.machine.page_idle(page)))


def _zero(state: State, v: Values) -> int:
    pte = _pte(state, v)
    return int(bool(pte_present(pte) and is_zero_frame(state.machine.kernel, int(pte_pfn(pte)))))


def _walk(which: str) -> Callable[[State, Values], int]:
    def measure(state: State, v: Values) -> int:
        page = _page(state, v)
        if not page:
            return 0
        walk = state.walk(page)
        return walk.visited if which == "visited" else walk.mapped

    return measure


def _entry(test: Callable[[int], object]) -> Callable[[State, Values], int]:
    def measure(state: State, v: Values) -> int:
        pte = _pte(state, v)
        return int(bool(pte_present(pte) and test(pte)))

    return measure


def _holds(test: Callable[[int], object]) -> Callable[[State, Values], int]:
    """Whether the entry is not present, and holds a swp_entry_t of some kind."""

    def measure(state: State, v: Values) -> int:
        pte = _pte(state, v)
        return int(bool(is_swap_pte(pte) and test(pte_to_swp_entry(pte))))

    return measure


def _is_slot(entry: int) -> bool:
    return not non_swap_entry(entry)


def _order(state: State, v: Values) -> int:
    process, address = _where(state, v)
    return process.order(address)


def _ksm(state: State, v: Values) -> int:
    return state.machine.ksm.counters()[v["name"]]


def _hugetlb(field: str) -> Callable[[State, Values], int]:
    def measure(state: State, v: Values) -> int:
        return int(getattr(state.machine.kernel.hstates[0], field))

    return measure


# ------------------------------------------------------------ of a VMA


def _vma(state: State, v: Values) -> Vma | None:
    process, address = _where(state, v)
    state.charge(len(process.mm.vmas) // 16)
    return process.vma_at(address)


def _of_vma(measure: Callable[[Vma], int]) -> Callable[[State, Values], int]:
    def of(state: State, v: Values) -> int:
        vma = _vma(state, v)
        return 0 if vma is None else measure(vma)

    return of


def _of_anon_vma(measure: Callable[[AnonVma], int]) -> Callable[[State, Values], int]:
    def of(state: State, v: Values) -> int:
        vma = _vma(state, v)
        return 0 if vma is None or vma.anon_vma is None else int(measure(vma.anon_vma))

    return of


# ------------------------------------------------------------ of processes and the machine


def _rss(*members: int) -> Callable[[State, Values], int]:
    def measure(state: State, v: Values) -> int:
        process = state.process(v["process"])
        return sum(int(process.mm.rss_stat[m]) for m in members) if process.alive else 0

    return measure


def _of_process(measure: Callable[[Process], int]) -> Callable[[State, Values], int]:
    def of(state: State, v: Values) -> int:
        process = state.process(v["process"])
        return int(measure(process)) if process.alive else 0

    return of


def _exists(state: State, v: Values) -> int:
    process = state.processes.get(v["process"])
    return int(process is not None and process.alive)


def _stat(state: State, v: Values) -> int:
    stats = state.machine.mem_stats()
    if v["name"] not in stats:
        raise WordError(f"there is no statistic {v['name']}; there are {', '.join(stats)}")
    return stats[v["name"]]


def _quirk(state: State, v: Values) -> int:
    if v["name"] not in {quirk.name for quirk in QUIRKS}:
        known = ", ".join(quirk.name for quirk in QUIRKS)
        raise WordError(f"there is no quirk {v['name']}; there are {known}")
    return int(bool(getattr(state.machine.kernel.profile, v["name"])))


def _usage(state: State, v: Values) -> int:
    cgroup = state.cgroup(v["cgroup"])
    return 0 if cgroup is None else cgroup.usage


def _limit(state: State, v: Values) -> int:
    cgroup = state.cgroup(v["cgroup"])
    return -1 if cgroup is None or cgroup.limit is None else cgroup.limit


def _outcome(state: State, v: Values) -> int:
    return 0 if state.last_reclaim is None else state.last_reclaim.counts[v["name"]]


def anon_vmas(state: State) -> int:
    """How many anon_vmas are allocated."""
    kernel = state.machine.kernel
    return len(kernel.anon_vmas) - 1 - len(kernel.anon_vma_free)


def _violations(state: State, v: Values) -> int:
    state.charge_machine()
    return len(state.machine.check())


def _chains(state: State, v: Values) -> int:
    state.charge_machine()
    return sum(len(vma.anon_vma_chain) for mm in state.machine.kernel.mms for vma in mm.vmas)


MEASURES: dict[str, Callable[[State, Values], int]] = {
    "mapped": lambda state, v: int(_page(state, v) > 0),
    "page": _page,
    "mapcount": _of_page(page_mapcount),
    "refcount": _of_page(page_count),
    "index": _of_page(page_to_pgoff),
    "compound": _of_page(_compound),
    "merged": _of_page(PageKsm),
    "order": _order,
    "broken": _holds(is_hwpoison_entry),
    "indevice": _holds(is_device_private_entry),
    "owner": lambda state, v: owner_of(state, _page(state, v)),
    "value": _value,
    "flag": _flag,
    "idle": _idle,
    "zero": _zero,
    "swapped": _holds(_is_slot),
    "writable": _entry(pte_write),
    "dirty": _entry(pte_dirty),
    "young": _entry(pte_young),
    "visited": _walk("visited"),
    "found": _walk("found"),
    "anon_vma": _of_anon_vma(lambda anon_vma: anon_vma.handle),
    "root": _of_anon_vma(lambda anon_vma: anon_vma.root.handle),
    "chain": _of_vma(lambda vma: len(vma.anon_vma_chain)),
    "degree": _of_anon_vma(lambda anon_vma: anon_vma.degree),
    "children": _of_anon_vma(lambda anon_vma: anon_vma.num_children),
    "active_vmas": _of_anon_vma(lambda anon_vma: anon_vma.num_active_vmas),
    "anon_refcount": _of_anon_vma(lambda anon_vma: anon_vma.refcount),
    "vma_pages": _of_vma(lambda vma: int(vma.vm_end - vma.vm_start) // bits.PAGE_SIZE),
    "exists": _exists,
    "vma_count": _of_process(lambda process: len(process.mm.vmas)),
    "rss": _rss(MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES),
    "anon": _rss(MM_ANONPAGES),
    "file": _rss(MM_FILEPAGES),
    "shmem": _rss(MM_SHMEMPAGES),
    "swapents": _rss(MM_SWAPENTS),
    "locked": _of_process(lambda process: process.mm.locked_vm),
    "processes": lambda state, v: len(state.machine.processes),
    "free": lambda state, v: int(state.machine.kernel.nr_free),
    "anon_vmas": lambda state, v: anon_vmas(state),
    "anon_vma_chains": _chains,
    "warnings": lambda state, v: len(state.machine.warnings),
    "violations": _violations,
    "stat": _stat,
    "usage": _usage,
    "limit": _limit,
    "cached": lambda state, v: len(state.known_file(v["file"]).cached),
    "outcome": _outcome,
    "ksm": _ksm,
    "hugetlb_pages": _hugetlb("nr_huge_pages"),
    "hugetlb_free": _hugetlb("free_huge_pages"),
    "hugetlb_reserved": _hugetlb("resv_huge_pages"),
    "quirk": _quirk,
}
