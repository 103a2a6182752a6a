# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of migration share: a machine, and acting while migration entries are in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from faulting import Faulting

from rmap.check import check_kernel
from rmap.mm import bits
from rmap.mm.pgtable import (
    is_migration_entry,
    is_swap_pte,
    is_write_migration_entry,
    pte_to_swp_entry,
    swp_offset,
)
from rmap.model import Process
from rmap.model.movement import Moved


class Moving(Faulting):
    """A machine whose pages are moved."""

    def while_moving(self, page: int, act: Callable[[], object]) -> Moved:
        """Migrate a page, and act when its mappings are gone and it has not moved yet."""
        acted: list[bool] = []

        def hook(name: str, what: tuple[Any, ...]) -> None:
            if name == "try_to_unmap" and not acted:
                acted.append(True)
                # The page that entries wait for is locked (I16).
                assert check_kernel(self.k, only=["migration-entries"]) == []
                act()
                assert check_kernel(self.k, only=["migration-entries"]) == []

        before, self.k.tracer = self.k.tracer, hook
        moved = self.m.migrate([page])
        self.k.tracer = before
        assert acted, "the page was not unmapped"
        return moved

    def moved(self, page: int) -> int:
        """Migrate a page; returns the one that it is now."""
        result = self.m.migrate([page])
        assert result.stayed == ()
        return result.moved[page]

    def entry(self, p: Process, address: int) -> str:
        """What kind of entry an address has: "read" or "write" of a migration, or ""."""
        pte = self.pte(p, address)
        if not is_swap_pte(pte) or not is_migration_entry(pte_to_swp_entry(pte)):
            return ""
        return "write" if is_write_migration_entry(pte_to_swp_entry(pte)) else "read"

    def entry_page(self, p: Process, address: int) -> int:
        """The page that a migration entry names."""
        return int(swp_offset(pte_to_swp_entry(self.pte(p, address))))

    def in_use(self) -> int:
        """Pages that are not free."""
        return int(np.count_nonzero(np.asarray(self.k.pg_refcount)))

    def anon(self, p: Process) -> int:
        """Anonymous pages of a process."""
        return int(p.mm.rss_stat[bits.MM_ANONPAGES])
