# SPDX-License-Identifier: GPL-2.0-only
from rmap.mm.bits cimport *
from rmap.scalar cimport flag, i32, i64, u64
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.content cimport clear_page_content, copy_page_content
from rmap.mm.migrate.migrate_vma cimport MigrateVma, MigrateVmaOps, migrate_vma
from rmap.mm.mm_types cimport DevicePagemap, Kernel, Vma
from rmap.mm.page cimport get_page, lock_page, trylock_page
from rmap.mm.page_alloc cimport alloc_page

cdef class DeviceMemory(DevicePagemap):
    cdef public list free_pages
    cdef public flag broken
    cpdef u64 alloc(self, Kernel k) except? 0

cdef class DeviceOps(MigrateVmaOps):
    cdef public DeviceMemory device
    cdef public i64 moved

cdef class ToDevice(DeviceOps):
    pass

cdef class ToRam(DeviceOps):
    cdef public flag no_memory

cpdef i64 migrate_to_device(
    Kernel k, DeviceMemory device, Vma vma, u64 start, u64 end
) except? -1
cpdef i64 migrate_to_ram(
    Kernel k, DeviceMemory device, Vma vma, u64 start, u64 end
) except? -1
