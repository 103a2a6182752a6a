# SPDX-License-Identifier: GPL-2.0-only
"""Random histories of a family of processes, against a naive account of who maps what."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .expect import Run, expect
from .world import Process, Region, World

pytestmark = pytest.mark.live

PAGES = 12
MAX_PROCESSES = 6
MADV_DONTNEED = 4

#: (what, by whom, in which region, first page, pages)
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "fork", "unmap", "drop", "exit"]),
        st.integers(0, MAX_PROCESSES - 1),
        st.integers(0, 2),
        st.integers(0, PAGES - 1),
        st.integers(1, PAGES),
    ),
    max_size=25,
)


class Account:
    """Who maps what, kept by hand.

    A page is any object; ``page_at`` says which one a process has at an address. Writing to
    private memory gives the writer a page of its own: whether the kernel copied the page or let
    the last user keep it, nobody else maps it afterwards.
    """

    def __init__(self, world: World, file: Path) -> None:
        self.world = world
        self.page_at: dict[Process, dict[int, object]] = defaultdict(dict)
        first = world.process()
        self.mapped = {first: set[int]()}
        self.anon = first.map_anon(PAGES)
        self.private = first.map_file(file, PAGES, private=True)
        self.shared = first.map_file(file, PAGES)
        self.regions = (self.anon, self.private, self.shared)
        for region in self.regions:
            self.mapped[first] |= set(region.addresses)
        first.read(self.private)
        for i, address in enumerate(self.private.addresses):
            self.page_at[first][address] = f"page {i} of the file"
        # From now on fork copies the page tables of this mapping: it has an anon_vma.
        self.write(first, self.private[0])

    def write(self, process: Process, page: Region) -> None:
        process.write(page)
        if page.start in self.shared.addresses:
            i = self.shared.addresses.index(page.start)
            self.page_at[process][page.start] = f"page {i} of the file"
        else:
            self.page_at[process][page.start] = object()

    def forget(self, process: Process, page: Region) -> None:
        self.page_at[process].pop(page.start, None)

    def fork(self, parent: Process) -> None:
        """The child gets private memory only: shared memory is left to faults."""
        child = parent.fork()
        child.call("outlive_parent")
        self.mapped[child] = set(self.mapped[parent])
        self.page_at[child] = {
            address: page
            for address, page in self.page_at[parent].items()
            if address not in self.shared.addresses
        }

    def exit(self, process: Process) -> None:
        process.exit()
        del self.mapped[process], self.page_at[process]

    def step(self, what: str, who: int, where: int, first: int, count: int) -> None:
        process = list(self.mapped)[who % len(self.mapped)]
        if what == "fork" and len(self.mapped) < MAX_PROCESSES:
            self.fork(process)
        elif what == "exit" and len(self.mapped) > 1:
            self.exit(process)
        for page in map(self.regions[where].__getitem__, range(first, min(first + count, PAGES))):
            if page.start not in self.mapped.get(process, ()):
                continue
            if what == "write":
                self.write(process, page)
            elif what == "drop":
                process.advise(page, MADV_DONTNEED)
                self.forget(process, page)
            elif what == "unmap":
                process.unmap(page)
                self.forget(process, page)
                self.mapped[process].remove(page.start)

    def runs(self) -> list[Run]:
        """The account, page by page."""
        places: dict[object, Run] = defaultdict(list)
        for process, pages in self.page_at.items():
            for address, page in pages.items():
                places[page].append((process, Region(address, 1)))
        return list(places.values())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
def test_any_history_of_a_family(
    puppet: Path, data_file: Path, history: list[tuple[str, int, int, int, int]]
) -> None:
    with World(puppet) as world:
        account = Account(world, data_file)
        for step in history:
            account.step(*step)

        expect(world, world.snapshot(), *account.runs())
