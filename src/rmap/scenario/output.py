# SPDX-License-Identifier: GPL-2.0-only
"""What the lines ``who``, ``walk``, ``pages``, ``vmas``, ``tree`` and ``show`` print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rmap.draw.tree_text import tree_text
from rmap.image.flags import permissions
from rmap.mm import bits
from rmap.mm.mm_types import Kernel, Vma
from rmap.mm.page import (
    PageCompound,
    PageDoubleMap,
    PageHuge,
    PageKsm,
    compound_head,
    page_count,
    page_mapcount,
    page_to_pgoff,
)
from rmap.mm.pgtable import (
    is_device_private_entry,
    is_hwpoison_entry,
    is_migration_entry,
    pte_pfn,
    pte_present,
    pte_to_swp_entry,
)
from rmap.query.tree import forest
from rmap.scenario import limits, report
from rmap.scenario.expression import PAGE_SIZE
from rmap.scenario.grammar import Values
from rmap.scenario.measure import is_zero_frame, owner_of, value_of
from rmap.scenario.naming import RegionNames, named
from rmap.scenario.quantities import PAGE_FLAGS
from rmap.scenario.state import Budget, Reclaimed, State
from rmap.text import aligned

#: Mappings of one page that a line lists.
_LISTED = 8
_PAGE_TITLES = ("PAGE", "FRAME", "OWNER", "INDEX", "MAPCOUNT", "REFCOUNT", "VALUE", "FLAGS")
_PAGE_RIGHT = frozenset(("OWNER", "INDEX", "MAPCOUNT", "REFCOUNT", "VALUE"))


def _spots(state: State, v: Values) -> Iterator[tuple[str, int]]:
    """Yield each page of a range: its place in words, and its entry."""
    process = state.process(v["process"])
    address = state.address(process, v["region"], v["off"])
    if v["len"] > limits.OUTPUT_LINES:
        raise Budget(f"{v['len']} pages are more than the {limits.OUTPUT_LINES:,} lines of output")
    for at in range(v["len"]):
        state.charge(1)
        yield f"{v['region']}+{v['off'] + at}", process.pte(address + at * PAGE_SIZE)


def _frame(state: State, pte: int) -> int:
    """The frame that an entry maps, 0 for none and for the zero page."""
    page = int(pte_pfn(pte)) if pte_present(pte) else 0
    return 0 if is_zero_frame(state.machine.kernel, page) else page


def _absent(pte: int) -> str:
    if not pte:
        return "nothing is mapped"
    if pte_present(pte):
        return "the zero page"
    entry = pte_to_swp_entry(pte)
    kinds = ((is_hwpoison_entry, "the page's memory broke"),
             (is_device_private_entry, "the page is in the device's memory"),
             (is_migration_entry, "the page is being moved"))  # fmt: skip
    return next((text for test, text in kinds if test(entry)), "swapped out")


def who(state: State, v: Values) -> Iterator[str]:
    """For each page, everybody who maps it."""
    places = state.places
    for place, pte in _spots(state, v):
        page = _frame(state, pte)
        if not page:
            yield f"{v['process']} {place}: {_absent(pte)}"
            continue
        mappings = state.walk(page).mappings
        listed = [f"{m.process.name} at {places.place(m.address)}" for m in mappings[:_LISTED]]
        if len(mappings) > _LISTED:
            listed.append(f"and {len(mappings) - _LISTED} more")
        count = int(page_mapcount(state.machine.kernel, page))
        yield (
            f"{v['process']} {place}: page {page:#x}, counted {count}, found {len(mappings)}: "
            f"{', '.join(listed) or 'nobody'}"
        )


def walk(state: State, v: Values) -> Iterator[str]:
    """For each page, the VMAs that a walk visited and those that mapped it."""
    for place, pte in _spots(state, v):
        page = _frame(state, pte)
        if not page:
            yield f"{v['process']} {place}: {_absent(pte)}"
            continue
        met = state.walk(page)
        owner = _owner(state, page)
        of = {"file": "a file", "KSM": "KSM"}.get(owner, f"anon_vma {owner}")
        yield (
            f"{v['process']} {place}: a walk of page {page:#x}, owned by {of}, visited "
            f"{met.visited} VMAs and found it in {met.mapped}"
        )


def _owner(state: State, page: int) -> str:
    """Whose a page is: the number of an anon_vma, ``KSM`` or ``file``."""
    if PageKsm(state.machine.kernel, page):
        return "KSM"
    return str(owner_of(state, page) or "file")


def _kinds(kernel: Kernel, page: int) -> list[str]:
    """What a page is part of, and whether it is mapped both ways."""
    head = compound_head(kernel, page)
    if not PageCompound(kernel, page):
        return []
    if PageHuge(kernel, page):
        return ["hugetlb"]
    return ["thp", "double_map"] if PageDoubleMap(kernel, head) else ["thp"]


def pages(state: State, v: Values) -> Iterator[str]:
    """A table of pages as the kernel knows them."""
    kernel = state.machine.kernel
    rows = []
    for place, pte in _spots(state, v):
        page = _frame(state, pte)
        if not page:
            rows.append((place, "-", "", "", "", "", "", _absent(pte)))
            continue
        word = int(kernel.pg_flags[compound_head(kernel, page)])
        flags = [name for name in PAGE_FLAGS if word & getattr(bits, f"PG_{name}")]
        rows.append(
            (
                place, hex(page), _owner(state, page), hex(page_to_pgoff(kernel, page)),
                str(page_mapcount(kernel, page)), str(page_count(kernel, page)),
                str(value_of(state, page)), " ".join(flags + _kinds(kernel, page)),
            )
        )  # fmt: skip
    return aligned(_PAGE_TITLES, rows, _PAGE_RIGHT)


def vmas(state: State, v: Values) -> Iterator[str]:
    """A table of VMAs with their chains."""
    names = [v["process"]] if v["process"] is not None else state.living
    places = state.places
    rows = []
    for name in names:
        for vma in state.process(name).vmas:
            rows.append(_vma_row(name, vma, places))
            state.charge(1 + len(vma.anon_vma_chain))
    return aligned(("PROCESS", "VMA", "PAGES", "PERM", "PGOFF", "CHAIN", "FILE"), rows)


def _vma_row(name: str, vma: Vma, places: RegionNames) -> tuple[str, ...]:
    own = vma.anon_vma
    chain = [
        f"{avc.anon_vma.handle}{'*' if avc.anon_vma is own else ''}" for avc in vma.anon_vma_chain
    ]
    return (
        name, places.place(int(vma.vm_start)), str((vma.vm_end - vma.vm_start) // PAGE_SIZE),
        permissions(int(vma.vm_flags)), hex(vma.vm_pgoff), " ".join(chain) or "-",
        vma.vm_file.name if vma.vm_file is not None else "",
    )  # fmt: skip


def tree(state: State, v: Values) -> Sequence[str]:
    """The anon_vma forest."""
    state.charge_machine()
    image = named(state.machine.snapshot(), state.regions)
    wanted = None if v["process"] is None else [state.process(v["process"]).pid]
    source = "the machine" if wanted is None else v["process"]
    return tree_text(forest(image, wanted), source)


def show(state: State, v: Values, reclaims: Sequence[Reclaimed]) -> list[str]:
    """A section of the report, as it is now."""
    state.charge_machine()
    if v["section"] == "reclaim":
        return report.lines(report.reclaim(state, reclaims))
    if v["section"] == "statistics":
        return report.lines(report.statistics(state))
    image = named(state.machine.snapshot(), state.regions)
    section = {
        "processes": report.processes, "sharing": report.sharing, "walks": report.walks,
    }[v["section"]]  # fmt: skip
    return report.lines(section(state, image))


OUTPUTS: dict[str, Callable[[State, Values], Iterator[str] | Sequence[str]]] = {
    "who": who,
    "walk": walk,
    "pages": pages,
    "vmas": vmas,
    "tree": tree,
}
