# SPDX-License-Identifier: GPL-2.0-only
"""Secondary MMUs hear of changes, and have their say about what was used."""

from __future__ import annotations

from handmade import CLEAN, DIRTY, WRITE, YOUNG, address_of, at, poke, process, pte_of, touch, world
from kernels import make_mm

from rmap.mm.bits import PAGE_SIZE
from rmap.mm.mm_types import Kernel, Mm
from rmap.mm.mmu_notifier import (
    MmuNotifier,
    mmu_notifier_invalidate_range,
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_only_end,
    mmu_notifier_invalidate_range_start,
    mmu_notifier_register,
    mmu_notifier_unregister,
    pmdp_clear_flush_young_notify,
    ptep_clear_flush_notify,
    ptep_clear_flush_young_notify,
    ptep_clear_young_notify,
    set_pte_at_notify,
)
from rmap.mm.pgtable import pfn_pte


class Guest(MmuNotifier):
    """A guest that wrote down what it was told, and used what it says it used."""

    def __init__(self, *, young: bool = False) -> None:
        self.heard: list[str] = []
        self.young = young

    def invalidate_range_start(self, k: Kernel, mm: Mm, start: int, end: int) -> int:
        self.heard.append(f"start {start:#x} {end:#x}")
        return 0

    def invalidate_range_end(self, k: Kernel, mm: Mm, start: int, end: int) -> int:
        self.heard.append(f"end {start:#x} {end:#x}")
        return 0

    def invalidate_range(self, k: Kernel, mm: Mm, start: int, end: int) -> int:
        self.heard.append(f"range {start:#x} {end:#x}")
        return 0

    def clear_flush_young(self, k: Kernel, mm: Mm, start: int, end: int) -> bool:
        self.heard.append(f"clear_flush_young {start:#x} {end:#x}")
        return self.young

    def clear_young(self, k: Kernel, mm: Mm, start: int, end: int) -> bool:
        self.heard.append(f"clear_young {start:#x} {end:#x}")
        return self.young

    def change_pte(self, k: Kernel, mm: Mm, address: int, pte: int) -> int:
        self.heard.append(f"change_pte {address:#x} {pte:#x}")
        return 0


def test_calls_are_recorded_whether_anybody_listens_or_not() -> None:
    k = world()
    mm = make_mm(k)
    mmu_notifier_invalidate_range_start(k, mm, 0x1000, 0x3000)
    assert k.notifier_log is None
    k.notifier_log = []
    mmu_notifier_invalidate_range_start(k, mm, 0x1000, 0x3000)
    mmu_notifier_invalidate_range(k, mm, 0x1000, 0x2000)
    mmu_notifier_invalidate_range_only_end(k, mm, 0x1000, 0x3000)
    mmu_notifier_invalidate_range_end(k, mm, 0x1000, 0x3000)
    assert k.notifier_log == [
        ("invalidate_range_start", mm.ident, 0x1000, 0x3000),
        ("invalidate_range", mm.ident, 0x1000, 0x2000),
        ("invalidate_range_only_end", mm.ident, 0x1000, 0x3000),
        ("invalidate_range_end", mm.ident, 0x1000, 0x3000),
    ]


def test_whoever_is_registered_hears_each_call_until_unregistered() -> None:
    k = world()
    mm, other = make_mm(k, "p"), make_mm(k, "q")
    guest, device = Guest(), Guest()
    mmu_notifier_register(k, mm, guest)
    mmu_notifier_register(k, mm, device)
    mmu_notifier_invalidate_range_start(k, mm, 0x1000, 0x2000)
    mmu_notifier_invalidate_range(k, mm, 0x1000, 0x2000)
    mmu_notifier_invalidate_range_only_end(k, mm, 0x1000, 0x2000)
    mmu_notifier_invalidate_range_start(k, other, 0x8000, 0x9000)
    assert guest.heard == ["start 0x1000 0x2000", "range 0x1000 0x2000", "end 0x1000 0x2000"]
    assert device.heard == guest.heard

    mmu_notifier_unregister(k, mm, guest)
    device.heard.clear()
    # The full end says once more that the range is invalid, for those who only hear that.
    mmu_notifier_invalidate_range_end(k, mm, 0x1000, 0x2000)
    assert device.heard == ["range 0x1000 0x2000", "end 0x1000 0x2000"]
    assert len(guest.heard) == 3
    mmu_notifier_unregister(k, mm, device)
    assert mm.notifier is None


def test_a_page_was_used_if_a_guest_used_it() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    a = address_of(vma, 0)
    ptep = at(k, vma)
    guest = Guest(young=True)
    poke(k, vma, pfn_pte(page, CLEAN))
    assert not ptep_clear_flush_young_notify(k, vma, a, ptep)
    assert not ptep_clear_young_notify(k, vma, a, ptep)
    mmu_notifier_register(k, vma.vm_mm, guest)
    assert ptep_clear_flush_young_notify(k, vma, a, ptep)
    assert ptep_clear_young_notify(k, vma, a, ptep)
    assert guest.heard == [
        f"clear_flush_young {a:#x} {a + PAGE_SIZE:#x}",
        f"clear_young {a:#x} {a + PAGE_SIZE:#x}",
    ]
    guest.young = False
    k.notifier_log = []
    poke(k, vma, pfn_pte(page, CLEAN | YOUNG))
    assert ptep_clear_flush_young_notify(k, vma, a, ptep)
    assert pte_of(k, vma) == pfn_pte(page, CLEAN)
    poke(k, vma, pfn_pte(page, CLEAN | YOUNG))
    assert ptep_clear_young_notify(k, vma, a, ptep)
    assert [name for name, *_ in k.notifier_log] == ["clear_flush_young", "clear_young"]


def test_a_huge_page_is_asked_for_whole() -> None:
    k = world()
    vma = process(k)
    ptep = at(k, vma)
    k.notifier_log = []
    k.pt[ptep] = pfn_pte(512, CLEAN | YOUNG)
    guest = Guest(young=True)
    assert pmdp_clear_flush_young_notify(k, vma, 0x4000_0000, ptep)
    assert not pmdp_clear_flush_young_notify(k, vma, 0x4000_0000, ptep)
    mmu_notifier_register(k, vma.vm_mm, guest)
    assert pmdp_clear_flush_young_notify(k, vma, 0x4000_0000, ptep)
    assert k.notifier_log[-1] == (
        "clear_flush_young",
        vma.vm_mm.ident,
        0x4000_0000,
        0x4020_0000,
    )


def test_an_entry_that_changes_is_told_before_it_is_there() -> None:
    k = world()
    vma = process(k)
    page = touch(k, vma)
    a = address_of(vma, 0)
    ptep = at(k, vma)
    guest = Guest()
    mmu_notifier_register(k, vma.vm_mm, guest)
    k.notifier_log = []
    assert ptep_clear_flush_notify(k, vma, a, ptep) == pfn_pte(page, CLEAN | YOUNG | DIRTY | WRITE)
    new = pfn_pte(page, CLEAN)
    set_pte_at_notify(k, vma.vm_mm, a, ptep, new)
    assert pte_of(k, vma) == new
    assert guest.heard == [f"range {a:#x} {a + PAGE_SIZE:#x}", f"change_pte {a:#x} {new:#x}"]
    assert k.notifier_log[-1] == ("change_pte", vma.vm_mm.ident, a, new)
