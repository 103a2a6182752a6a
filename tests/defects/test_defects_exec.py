# SPDX-License-Identifier: GPL-2.0-only
"""A stack that exec moves under migration: D14.

D14 (2010). exec fills a stack at the top of the address space and then moves it down. While it
does, one VMA covers the old place and the new one, with the page offset that it had: so a walk of
the reverse map looks for each page at its new address, be it there yet or not. Migration that
replaced the entry at the old address before does not find it again afterwards; the next fault, or
fork, comes upon an entry for a page that nobody moves: "kernel BUG at
include/linux/swapops.h:105!". a8bef8ff6ea1 (2.6.35) marks such a stack by flags that no VMA has
together, and migration passes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faulting import PAGE, Faulting
from handmade import crashed

from rmap.mm.bits import TTU_IGNORE_ACCESS, TTU_IGNORE_MLOCK, TTU_MIGRATION
from rmap.mm.bug import KernelBug
from rmap.mm.migrate.entries import remove_migration_ptes
from rmap.mm.mm_types import Task
from rmap.mm.page import get_page, lock_page, unlock_page
from rmap.mm.pgtable import pte_lookup, pte_pfn, pte_present
from rmap.mm.unmap import try_to_unmap
from rmap.mm.vma import is_vma_temporary_stack
from rmap.sync.core import scheduler


class Listening(list[Any]):
    """A log of notifications that lets something happen at each of them."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act

    def append(self, entry: Any) -> None:
        self.act()


class Migrator:
    """Another CPU that moves the stack's page: first its entry away, and later back."""

    def __init__(self, f: Faulting) -> None:
        self.f, self.k = f, f.k
        self.task = Task("migrator", 77, None, 1)
        self.page = 0
        self.unmapped = False

    def run(self, act: Callable[[], None]) -> None:
        """Do something on its CPU."""
        sched = scheduler()
        mine, sched.current = sched.current, self.task
        act()
        sched.current = mine

    def notified(self) -> None:
        """exec works on a stack: before it moves, and when the VMA covers both places."""
        stack = self.k.mms[-1].vmas[0]
        if not is_vma_temporary_stack(stack):
            return
        moving = stack.vm_end - stack.vm_start > PAGE
        if not moving and not self.page:
            ptep = pte_lookup(self.k, stack.vm_mm, stack.vm_end - PAGE)
            if ptep and pte_present(self.k.pt[ptep]):
                self.page = int(pte_pfn(self.k.pt[ptep]))
                self.run(self.take)
        elif moving and self.unmapped:
            self.run(self.put_back)

    def take(self) -> None:
        get_page(self.k, self.page)
        lock_page(self.k, self.page)
        flags = TTU_MIGRATION | TTU_IGNORE_MLOCK | TTU_IGNORE_ACCESS
        self.unmapped = bool(try_to_unmap(self.k, self.page, flags))
        if not self.unmapped:
            unlock_page(self.k, self.page)

    def put_back(self) -> None:
        remove_migration_ptes(self.k, self.page, self.page, False)
        unlock_page(self.k, self.page)
        self.unmapped = False


@pytest.mark.parametrize("fixed", [False, True])
def test_d14_migration_loses_its_entry_in_a_stack_that_moves(fixed: bool) -> None:
    f = Faulting(migration_skips_moving_stack=fixed)
    migrator = Migrator(f)
    f.k.notifier_log = Listening(migrator.notified)
    f.p.exec("program")
    f.k.notifier_log = None
    assert migrator.page
    top = f.p.vmas[0].vm_end - PAGE
    if fixed:
        assert f.page(f.p, top) == migrator.page
        assert b"program\0" in f.p.read(top, PAGE)
        return
    assert f.page(f.p, top) == 0
    assert f.counts(migrator.page) == (0, 1), "it names a page that nobody moves"
    with pytest.raises(KernelBug, match="swapops"):
        f.p.fork()
    crashed()
