# SPDX-License-Identifier: GPL-2.0-only
"""mm/rmap.c of v4.18, whole: its functions in its order, and in which module each of them stands.

The file is too long for one module, and two thirds of it are compiled to C. This one is neither:
it is where whoever has the listing open looks a function up. `LISTING` has all of them, also those
that are static in the kernel and cannot be imported from compiled modules; the others can be
imported from here.

>>> where("page_mkclean_one")
'rmap.mm.page_mkclean (mm/rmap.c:883)'

The lock order of the listing's header is `rmap.sync.bits`; a lock taken against it is an error
while `rmap.sync.core.Scheduler.checking` is on.
"""

from __future__ import annotations

from rmap.mm.anon_vma import (
    __anon_vma_prepare,
    __put_anon_vma,
    anon_vma_clone,
    anon_vma_fork,
    anon_vma_init,
    page_get_anon_vma,
    page_lock_anon_vma_read,
    page_unlock_anon_vma_read,
    unlink_anon_vmas,
)
from rmap.mm.page_mkclean import page_mkclean
from rmap.mm.page_referenced import PageReferencedArg, page_referenced, page_referenced_range
from rmap.mm.page_vma_mapped import (
    PageVmaMappedWalk,
    page_mapped_in_vma,
    page_vma_mapped_walk,
    page_vma_mapped_walk_done,
)
from rmap.mm.rmap_counts import (
    do_page_add_anon_rmap,
    hugepage_add_anon_rmap,
    hugepage_add_new_anon_rmap,
    page_add_anon_rmap,
    page_add_file_rmap,
    page_add_new_anon_rmap,
    page_dup_rmap,
    page_move_anon_rmap,
    page_remove_rmap,
)
from rmap.mm.rmap_walk import (
    RmapWalkControl,
    mm_find_pmd,
    page_address_in_vma,
    rmap_walk,
    rmap_walk_locked,
)
from rmap.mm.tlb import flush_tlb_batched_pending, try_to_unmap_flush, try_to_unmap_flush_dirty
from rmap.mm.unmap import try_to_munlock, try_to_unmap, try_to_unmap_range
from rmap.mm.vma import is_vma_temporary_stack

#: Every function of mm/rmap.c in order: its line, its name, and the module that has it. Callbacks
#: are methods there.
LISTING: tuple[tuple[int, str, str], ...] = (
    (78, "anon_vma_alloc", "anon_vma"),
    (97, "anon_vma_free", "anon_vma"),
    (127, "anon_vma_chain_alloc", "anon_vma"),
    (132, "anon_vma_chain_free", "anon_vma"),
    (137, "anon_vma_chain_link", "anon_vma"),
    (175, "__anon_vma_prepare", "anon_vma"),
    (231, "lock_anon_vma_root", "anon_vma"),
    (243, "unlock_anon_vma_root", "anon_vma"),
    (261, "anon_vma_clone", "anon_vma"),
    (315, "anon_vma_fork", "anon_vma"),
    (376, "unlink_anon_vmas", "anon_vma"),
    (423, "anon_vma_ctor", "anon_vma"),
    (432, "anon_vma_init", "anon_vma"),
    (464, "page_get_anon_vma", "anon_vma"),
    (507, "page_lock_anon_vma_read", "anon_vma"),
    (569, "page_unlock_anon_vma_read", "anon_vma"),
    (581, "try_to_unmap_flush", "tlb"),
    (594, "try_to_unmap_flush_dirty", "tlb"),
    (602, "set_tlb_ubc_flush_pending", "tlb"),
    (629, "should_defer_flush", "tlb"),
    (659, "flush_tlb_batched_pending", "tlb"),
    (687, "page_address_in_vma", "rmap_walk"),
    (710, "mm_find_pmd", "rmap_walk"),
    (753, "page_referenced_one", "page_referenced"),
    (815, "invalid_page_referenced_vma", "page_referenced"),
    (836, "page_referenced", "page_referenced"),
    (883, "page_mkclean_one", "page_mkclean"),
    (957, "invalid_mkclean_vma", "page_mkclean"),
    (965, "page_mkclean", "page_mkclean"),
    (1000, "page_move_anon_rmap", "rmap_counts"),
    (1025, "__page_set_anon_rmap", "rmap_counts"),
    (1054, "__page_check_anon_rmap", "rmap_counts"),
    (1087, "page_add_anon_rmap", "rmap_counts"),
    (1098, "do_page_add_anon_rmap", "rmap_counts"),
    (1150, "page_add_new_anon_rmap", "rmap_counts"),
    (1179, "page_add_file_rmap", "rmap_counts"),
    (1210, "page_remove_file_rmap", "rmap_counts"),
    (1252, "page_remove_anon_compound_rmap", "rmap_counts"),
    (1297, "page_remove_rmap", "rmap_counts"),
    (1336, "try_to_unmap_one", "unmap"),
    (1629, "is_vma_temporary_stack", "vma"),
    (1643, "invalid_migration_vma", "unmap"),
    (1648, "page_mapcount_is_zero", "unmap"),
    (1663, "try_to_unmap", "unmap"),
    (1692, "page_not_mapped", "unmap"),
    (1706, "try_to_munlock", "unmap"),
    (1722, "__put_anon_vma", "anon_vma"),
    (1731, "rmap_walk_anon_lock", "rmap_walk"),
    (1767, "rmap_walk_anon", "rmap_walk"),
    (1819, "rmap_walk_file", "rmap_walk"),
    (1861, "rmap_walk", "rmap_walk"),
    (1872, "rmap_walk_locked", "rmap_walk"),
    (1888, "__hugepage_set_anon_rmap", "rmap_counts"),
    (1905, "hugepage_add_anon_rmap", "rmap_counts"),
    (1919, "hugepage_add_new_anon_rmap", "rmap_counts"),
)

# In the order of the listing; behind them what include/linux/rmap.h adds.
__all__ = [  # noqa: RUF022
    "__anon_vma_prepare",
    "anon_vma_clone",
    "anon_vma_fork",
    "unlink_anon_vmas",
    "anon_vma_init",
    "page_get_anon_vma",
    "page_lock_anon_vma_read",
    "page_unlock_anon_vma_read",
    "try_to_unmap_flush",
    "try_to_unmap_flush_dirty",
    "flush_tlb_batched_pending",
    "page_address_in_vma",
    "mm_find_pmd",
    "page_referenced",
    "page_mkclean",
    "page_move_anon_rmap",
    "page_add_anon_rmap",
    "do_page_add_anon_rmap",
    "page_add_new_anon_rmap",
    "page_add_file_rmap",
    "page_remove_rmap",
    "is_vma_temporary_stack",
    "try_to_unmap",
    "try_to_munlock",
    "__put_anon_vma",
    "rmap_walk",
    "rmap_walk_locked",
    "hugepage_add_anon_rmap",
    "hugepage_add_new_anon_rmap",
    "PageReferencedArg",
    "PageVmaMappedWalk",
    "RmapWalkControl",
    "page_dup_rmap",
    "page_mapped_in_vma",
    "page_referenced_range",
    "page_vma_mapped_walk",
    "page_vma_mapped_walk_done",
    "try_to_unmap_range",
    "LISTING",
    "where",
]


def where(name: str) -> str:
    """In which module a function of mm/rmap.c stands, and at which line it does in the kernel.

    Raises `KeyError` for a name that mm/rmap.c does not have.
    """
    for line, function, module in LISTING:
        if function == name:
            return f"rmap.mm.{module} (mm/rmap.c:{line})"
    raise KeyError(name)
