# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
"""Memory of devices that no CPU can reach: device-private pages and their driver (mm/hmm.c, v4.18).

The memory map goes on behind RAM with the pages of a device. They hold anonymous memory of
processes, whose page tables name them by special swap entries; rmap, rss and cgroups count them
like any other page. `DeviceMemory` is what a driver does: it gives out its pages, moves memory of a
process there when it is told to, and back when a CPU faults on it.

Locks: mmap_sem for read is held by the caller; the rest is that of `migrate_vma`.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from rmap.mm.bits import (
        ENOMEM,
        GFP_HIGHUSER,
        PAGE_SIZE,
        VM_FAULT_OOM,
        VM_FAULT_SIGBUS,
        PG_device_private,
        PG_locked,
        PG_zone_device,
    )
    from rmap.mm.bug import BUG_PAGE
    from rmap.mm.content import clear_page_content, copy_page_content
    from rmap.mm.migrate.migrate_vma import MigrateVma, MigrateVmaOps, migrate_vma
    from rmap.mm.mm_types import DevicePagemap, Kernel, Vma
    from rmap.mm.page import get_page, lock_page, trylock_page
    from rmap.mm.page_alloc import alloc_page
    from rmap.scalar import i32, i64, u64


class DeviceMemory(DevicePagemap):
    """A device with `pages` pages of its own memory; `free_pages` are those nobody has.

    `contents` are in `Kernel.content`, as all memory's. While `broken` is set it cannot give
    anything back, so that whoever touches its memory dies of it.
    """

    def __init__(self, k: Kernel, pages: i64) -> None:
        first: u64 = len(k.pg_flags)
        super().__init__(first, first + pages - 1)
        self.free_pages = list(range(first + pages - 1, first - 1, -1))
        self.broken = False
        k.add_device_memory(self, PG_zone_device | PG_device_private)

    def alloc(self, k: Kernel) -> u64:
        """A locked page with a reference, 0 if none is free: hmm_vma_alloc_locked_page()."""
        if k.inject is not None and k.inject.should_fail("device_page"):
            return 0
        if not self.free_pages:
            return 0
        page: u64 = self.free_pages.pop()
        if k.pg_refcount[page] != 1 or k.pg_mapcount[page] != -1 or k.pg_mapping[page]:
            BUG_PAGE("hmm.c a free page of a device is in use", page)
        k.pg_flags[page] = PG_zone_device | PG_device_private
        k.pg_private[page] = 0
        clear_page_content(k, page)
        get_page(k, page)
        lock_page(k, page)
        return page

    def page_free(self, k: Kernel, page: u64) -> i32:
        """Nobody but the device has the page any more."""
        if k.pg_mapcount[page] != -1 or k.pg_flags[page] & PG_locked:
            BUG_PAGE("hmm.c a page of a device is freed that is mapped or locked", page)
        clear_page_content(k, page)
        self.free_pages.append(page)
        return 0

    def fault(self, k: Kernel, vma: Vma, address: u64, page: u64) -> i32:
        """Bring a page back for a CPU that wants it; 0 to try again, else VM_FAULT_ bits.

        A page that was found, and locked, and did not come, never will: others have it mapped where
        unmapping does not find it, or the device is broken. That is the end of the process.
        """
        ops: ToRam = ToRam(self)
        migrate_vma(k, ops, vma, address, address + PAGE_SIZE)
        if ops.no_memory:
            return VM_FAULT_OOM
        return 0 if ops.moved or not ops.prepared else VM_FAULT_SIGBUS


class DeviceOps(MigrateVmaOps):
    """A move to a device or back: `moved` of the pages are where they were to go."""

    def __init__(self, device: DeviceMemory) -> None:
        super().__init__()
        self.device = device
        self.moved = 0

    def finalize_and_map(self, k: Kernel, m: MigrateVma) -> i32:
        """Count what went well."""
        i: i64
        for i in range(m.npages):
            if m.migrates(i) and m.dst[i]:
                self.moved += 1
        return 0


class ToDevice(DeviceOps):
    """Where memory goes that is moved to a device."""

    def alloc_and_copy(self, k: Kernel, m: MigrateVma) -> i32:
        """A page of the device for each page; those without one stay."""
        i: i64
        page: u64
        for i in range(m.npages):
            if not m.migrates(i):
                continue
            page = self.device.alloc(k)
            m.dst[i] = page
            if page and m.page(i):
                copy_page_content(k, page, m.page(i))
        return 0


class ToRam(DeviceOps):
    """Where memory goes that a device gives back: to any page.

    `no_memory`: there was no page for some of it.
    """

    def __init__(self, device: DeviceMemory) -> None:
        super().__init__(device)
        self.no_memory = False

    def alloc_and_copy(self, k: Kernel, m: MigrateVma) -> i32:
        """A page of RAM for each page of the device, unless that is broken."""
        i: i64
        page: u64
        for i in range(m.npages):
            page = m.page(i)
            if not m.migrates(i) or self.device.broken:
                continue
            if page < self.device.start or page > self.device.end:
                continue
            page = 0
            if k.inject is None or not k.inject.should_fail("migration_target"):
                page = alloc_page(k, GFP_HIGHUSER)
            if not page:
                self.no_memory = True
                continue
            trylock_page(k, page)
            m.dst[i] = page
            copy_page_content(k, page, m.page(i))
        return 0


def migrate_to_device(k: Kernel, device: DeviceMemory, vma: Vma, start: u64, end: u64) -> i64:
    """Move a range of a VMA to a device, untouched memory too; how many pages, or -errno."""
    ops: ToDevice = ToDevice(device)
    error: i32 = migrate_vma(k, ops, vma, start, end)
    return error if error else ops.moved


def migrate_to_ram(k: Kernel, device: DeviceMemory, vma: Vma, start: u64, end: u64) -> i64:
    """Move what is on a device back; how many pages, or -errno."""
    ops: ToRam = ToRam(device)
    error: i32 = migrate_vma(k, ops, vma, start, end)
    if not error and ops.no_memory:
        error = -ENOMEM
    return error if error else ops.moved
