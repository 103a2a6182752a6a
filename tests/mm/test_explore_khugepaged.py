# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged against faults, aging and exit on another CPU, in orders drawn by lot.

Whatever the order, no store is lost, no walk is misled, and everything can be recounted; and both
ends are met, a collapse that comes first and one that gives up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from faulting import PAGE
from hugely import AT, HUGE, mark
from racing import Race, Uneven

from rmap.mm import bits
from rmap.mm.huge.khugepaged import khugepaged_do_scan
from rmap.mm.lru import put_page
from rmap.mm.madvise import do_madvise
from rmap.mm.mm_types import Task
from rmap.mm.page import get_page_unless_zero
from rmap.mm.page_referenced import PageReferencedArg, page_referenced
from rmap.sync.explore import World, explore

RUNS = 12
#: Half of the PTEs must have been used.
USED = 260


class Collapsing(Race):
    """Memory that khugepaged is about to collapse, on CPU 1."""

    def __init__(self, made: set[int]) -> None:
        super().__init__(ram=2048, swap=64, max_steps=1_000_000)
        self.k.thp_enabled = bits.THP_MADVISE
        self.a = int(self.p.mmap(HUGE, addr=AT))
        for i in range(USED):
            self.p.write(self.a + i * PAGE, mark(i))
        self.p.madvise(self.a, HUGE, "hugepage")
        self.made = made
        scan = self.kthread(lambda: khugepaged_do_scan(self.k, 512))
        self.run("khugepaged", Task("khugepaged", 99, None, 1), scan)

    def ended(self, want: dict[int, bytes]) -> None:
        """All pages hold what they must, and what khugepaged came to is noted."""
        made = self.outcome["khugepaged"]
        assert isinstance(made, int)
        self.made.add(made)
        for i in range(USED + 10):
            data = want.get(i, mark(i) if i < USED else bytes(5))
            assert self.p.read(self.a + i * PAGE, 5) == data


def against_stores(made: set[int]) -> World:
    """Stores to a page that is there, and to one that is not."""
    f = Collapsing(made)
    stores = [f.store(f.a + 9 * PAGE, b"there"), f.store(f.a + (USED + 5) * PAGE, b"fresh")]
    f.run("p", f.p.task, *stores, f.load(f.a + 9 * PAGE, 5))
    return f.world(lambda: f.ended({9: b"there", USED + 5: b"fresh"}))


def against_aging(made: set[int]) -> World:
    """A walk of the reverse map, which takes a page's reference and waits for nobody."""
    f = Collapsing(made)
    page = f.p.pages(f.a + 7 * PAGE, PAGE)[0]
    arg = PageReferencedArg()

    def age() -> int:
        if not get_page_unless_zero(f.k, page):
            return 0
        referenced = page_referenced(f.k, page, False, None, arg)
        put_page(f.k, page)
        return int(referenced)

    f.run("kswapd", Task("kswapd", 98, None, 0), f.kthread(age))
    return f.world(lambda: f.ended({}))


def against_dontneed(made: set[int]) -> World:
    """The process gives a part of the memory up."""
    f = Collapsing(made)
    zap = bits.MADV_DONTNEED
    f.run("p", f.p.task, lambda task: do_madvise(f.k, f.p.mm, f.a, 4 * PAGE, zap))
    return f.world(lambda: f.ended(dict.fromkeys(range(4), bytes(5))))


@pytest.mark.parametrize("make", [against_stores, against_aging, against_dontneed])
def test_no_order_of_khugepaged_and_another_cpu_breaks_anything(
    make: Callable[[set[int]], World],
) -> None:
    made: set[int] = set()
    result = explore(partial(make, made), Uneven(3, RUNS))
    assert result.runs == RUNS
    assert result.findings == [], str(result.findings[0])
    assert 1 in made
