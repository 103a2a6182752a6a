# SPDX-License-Identifier: GPL-2.0-only
"""The sections of a run's report: processes, sharing, walks, reclaim, statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmap.image import MemoryImage
from rmap.query.report import report
from rmap.query.usage import Counter, page_counters
from rmap.query.walks import walk_costs
from rmap.scenario.measure import anon_vmas
from rmap.scenario.quantities import RECLAIM_COUNTS
from rmap.scenario.state import Reclaimed, State
from rmap.text import aligned, human_bytes


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its key, its title, and what it holds (text, count, bytes, ratio)."""

    key: str
    title: str
    unit: str = "text"


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the report; `empty` is said of one without rows."""

    name: str
    title: str
    fields: tuple[Field, ...]
    rows: Sequence[Sequence[Any]]
    empty: str = ""


_PROCESSES = (
    Field("pid", "PID", "count"), Field("name", "NAME"), Field("comm", "COMMAND"),
    Field("parent", "PARENT"), Field("cgroup", "CGROUP"), Field("vmas", "VMAS", "count"),
    Field("rss", "RSS", "bytes"), Field("pss", "PSS", "bytes"), Field("uss", "USS", "bytes"),
    Field("anon", "ANON", "bytes"), Field("file", "FILE", "bytes"),
    Field("shmem", "SHMEM", "bytes"), Field("swap", "SWAP", "bytes"),
    Field("locked", "LOCKED", "bytes"),
)  # fmt: skip
_SHARING = (
    Field("mappings", "MAPPINGS"), Field("anon", "ANON", "count"), Field("file", "FILE", "count"),
    Field("shmem", "SHMEM", "count"), Field("pages", "PAGES", "count"),
    Field("bytes", "SIZE", "bytes"),
)  # fmt: skip
_WALKS = (
    Field("of", "WALKS OF"), Field("walks", "WALKS", "count"),
    Field("visited", "VMAS VISITED", "count"), Field("found", "MAPPED THE PAGE", "count"),
    Field("useful", "USEFUL", "ratio"), Field("most", "MOST FOR A PAGE", "count"),
)  # fmt: skip
_STATISTICS = (Field("name", "STATISTIC"), Field("value", "VALUE", "count"))


def processes(state: State, image: MemoryImage) -> Section:
    """Every living process, by pid."""
    names = {process.pid: name for name, process in state.processes.items() if process.alive}
    answer = report(image, by="process") if len(image.processes) else None
    sizes = {group.pids[0]: group for group in (answer.groups if answer else ())}
    rows = []
    for at, pid in enumerate(image.processes["pid"].tolist()):
        table = image.processes
        mm = int(table["mm"][at])
        group = sizes[pid]
        rows.append(
            (
                pid, names.get(pid, ""), table["comm"][at],
                names.get(int(table["ppid"][at]), "") or _or_none(int(table["ppid"][at])),
                table["cgroup"][at], int(image.vma_offsets[mm + 1] - image.vma_offsets[mm]),
                group.rss.total, group.pss.total, group.uss.total, group.rss.anon, group.rss.file,
                group.rss.shmem, group.swap, int(image.mms["locked"][mm]),
            )
        )  # fmt: skip
    return Section("processes", "Processes", _PROCESSES, rows, "No process is left.")


def _or_none(ppid: int) -> str | None:
    return f"pid {ppid}" if ppid > 0 else None


def sharing(state: State, image: MemoryImage) -> Section:
    """Mapped pages by how often they are mapped."""
    found = image.reverse.count(image.pages["pfn"])
    mapped = np.flatnonzero(found)
    counters = page_counters(image.pages["flags"][mapped])
    # 1, 2, 3-4, 5-8, ...: the class of n mappings is the number of bits of n - 1.
    classes = np.ceil(np.log2(np.maximum(found[mapped], 1))).astype(np.int64)
    rows = []
    for degree in np.unique(classes).tolist():
        chosen = counters[classes == degree]
        kinds = [
            int((chosen == kind).sum()) for kind in (Counter.ANON, Counter.FILE, Counter.SHMEM)
        ]
        low, high = (1 << degree >> 1) + 1, 1 << degree
        label = str(high) if high <= 2 else f"{low}-{high}"
        rows.append((label, *kinds, len(chosen), len(chosen) * image.page_size))
    return Section(
        "sharing", "Pages by the number of their mappings", _SHARING, rows, "No page is mapped."
    )


def walks(state: State, image: MemoryImage) -> Section:
    """What reverse-map walks met: those that were done, and those that could be done now."""
    stats = state.machine.mem_stats()
    done = (stats["rmap_walks"], stats["rmap_vmas_visited"], stats["rmap_vmas_mapped"])
    rows: list[tuple[Any, ...]] = [
        ("by the kernel so far", *done, _ratio(done[2], done[1]), None),
    ]
    rows += [
        (f"each {cost.kind} page now", cost.pages, cost.visited, cost.found,
         _ratio(cost.found, cost.visited), cost.most)
        for cost in walk_costs(image)
    ]  # fmt: skip
    return Section("walks", "Reverse-map walks", _WALKS, rows)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def reclaim(state: State, reclaims: Sequence[Reclaimed]) -> Section:
    """What became of the pages, added up for each line of the scenario that reclaims."""
    fields = (
        Field("line", "LINE", "count"), Field("cgroup", "CGROUP"), Field("times", "TIMES", "count"),
        Field("wanted", "WANTED", "count"),
        *(Field(key, key.upper().replace("_", " "), "count") for key in RECLAIM_COUNTS),
    )  # fmt: skip
    sums: dict[tuple[int, str], list[int]] = {}
    for one in reclaims:
        total = sums.setdefault((one.place.line, one.cgroup), [0] * (2 + len(RECLAIM_COUNTS)))
        counts = (1, one.wanted, *(one.counts[key] for key in RECLAIM_COUNTS))
        total[:] = [a + b for a, b in zip(total, counts, strict=True)]
    rows = [(*key, *total) for key, total in sums.items()]
    return Section("reclaim", "Reclaim", fields, rows, "The scenario asked for no reclaim.")


def statistics(state: State) -> Section:
    """The kernel's statistics, and how many anon_vmas and chains there are."""
    chains = sum(len(vma.anon_vma_chain) for mm in state.machine.kernel.mms for vma in mm.vmas)
    own = {"anon_vmas": anon_vmas(state), "anon_vma_chains": chains}
    rows = list({**state.machine.mem_stats(), **own}.items())
    return Section("statistics", "Statistics", _STATISTICS, rows)


_CELLS: dict[str, Callable[[Any], str]] = {
    "bytes": human_bytes,
    "ratio": lambda value: f"{100 * value:.1f} %",
    "count": lambda value: str(value),
    "text": lambda value: str(value),
}


def lines(section: Section) -> list[str]:
    """Return a section as lines of text; statistics that are 0 are left out."""
    rows = [row for row in section.rows if section.name != "statistics" or row[1]]
    if not rows:
        return [section.empty or f"{section.title}: nothing"]
    cells = [
        [
            "-" if value is None else _CELLS[field.unit](value)
            for field, value in zip(section.fields, row, strict=True)
        ]
        for row in rows
    ]
    titles = [field.title for field in section.fields]
    right = [field.title for field in section.fields if field.unit != "text"]
    return [section.title, *(f"  {line}" for line in aligned(titles, cells, right))]
