# SPDX-License-Identifier: GPL-2.0-only
"""What the lines ``who``, ``walk``, ``pages``, ``vmas``, ``tree`` and ``show`` print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rmap.draw.tree_text import tree_text
from rmap.image.flags import permissions
from rmap.mm import bits
from rmap.mm.mm_types import Vma
from rmap.mm.page import page_mapcount
from rmap.mm.pgtable import pte_pfn, pte_present
from rmap.query.tree import forest
from rmap.scenario import limits, report
from rmap.scenario.expression import PAGE_SIZE
from rmap.scenario.grammar import Values
from rmap.scenario.measure import owner_of, value_of
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
    return 0 if page == state.machine.kernel.zero_page else page


def _absent(pte: int) -> str:
    if not pte:
        return "nothing is mapped"
    return "the zero page" if pte_present(pte) else "swapped out"


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
        owner = owner_of(state, page)
        of = f"anon_vma {owner}" if owner else "a file"
        yield (
            f"{v['process']} {place}: a walk of page {page:#x}, owned by {of}, visited "
            f"{met.visited} VMAs and found it in {met.mapped}"
        )


def pages(state: State, v: Values) -> Iterator[str]:
    """A table of pages as the kernel knows them."""
    kernel = state.machine.kernel
    rows = []
    for place, pte in _spots(state, v):
        page = _frame(state, pte)
        if not page:
            rows.append((place, "-", "", "", "", "", "", _absent(pte)))
            continue
        flags = [name for name in PAGE_FLAGS if kernel.pg_flags[page] & getattr(bits, f"PG_{name}")]
        rows.append(
            (
                place, hex(page), str(owner_of(state, page) or "file"),
                hex(kernel.pg_index[page]), str(page_mapcount(kernel, page)),
                str(kernel.pg_refcount[page]), str(value_of(state, page)), " ".join(flags),
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
