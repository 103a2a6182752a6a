# SPDX-License-Identifier: GPL-2.0-only
"""One line for each kernel function of interest: ``page_remove_rmap page 0x12 compound 0``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rmap.mm.mm_types import AddressSpace, AnonVma, MemCgroup, Mm, Task, Vma

#: What the functions report, in order. A test looks for every report in the model's sources.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "__split_huge_pmd": ("vma", "address", "freeze"),
    "action_result": ("page", "kind", "result"),
    "add_to_swap": ("page", "entry"),
    "alloc_huge_page": ("page", "vma", "address", "avoid_reserve"),
    "alloc_set_pte": ("page", "vma", "address", "write"),
    "anon_vma_clone": ("dst", "src"),
    "anon_vma_fork": ("vma", "parent", "anon_vma"),
    "anon_vma_free": ("anon_vma",),
    "anon_vma_prepare": ("vma", "anon_vma"),
    "break_ksm": ("page", "vma", "address"),
    "collapse_huge_page": ("mm", "address", "page", "result"),
    "collapse_shmem": ("mapping", "index", "page", "result"),
    "compact_zone": ("order", "mode", "moved", "result"),
    "copy_huge_pmd": ("vma", "parent", "address", "error"),
    "copy_hugetlb_page_range": ("vma", "parent", "error"),
    "copy_page_range": ("vma", "parent", "error"),
    "deferred_split_huge_page": ("page",),
    "do_anonymous_page": ("page", "vma", "address"),
    "do_execve": ("task", "name", "error"),
    "do_huge_pmd_anonymous_page": ("page", "vma", "address"),
    "do_huge_pmd_wp_page": ("page", "vma", "address", "copied"),
    "do_page_add_anon_rmap": ("page", "vma", "address", "flags"),
    "do_set_pmd": ("page", "vma", "address", "write"),
    "do_swap_page": ("page", "vma", "address", "entry"),
    "dup_mmap": ("mm", "oldmm", "error"),
    "exit_mm": ("task", "mm"),
    "expand_downwards": ("vma", "address"),
    "free_huge_page": ("page", "reserve"),
    "free_unref_page": ("page",),
    "handle_mm_fault": ("vma", "address", "flags"),
    "huge_pmd_share": ("mm", "table"),
    "huge_pmd_unshare": ("mm", "table"),
    "hugetlb_cow": ("old", "page", "vma", "address"),
    "hugetlb_fault": ("vma", "address", "flags", "result"),
    "khugepaged_scan_pmd": ("mm", "address", "result"),
    "khugepaged_scan_shmem": ("mm", "mapping", "index", "result"),
    "kill_proc": ("task", "signal", "code", "address"),
    "ksm_migrate_page": ("page", "old"),
    "mcopy_atomic_pte": ("page", "vma", "address"),
    "memory_failure": ("page", "flags", "error"),
    "migrate_pages": ("mode", "reason", "moved", "failed"),
    "migrate_vma": ("vma", "start", "end"),
    "mlock_vma_page": ("page",),
    "mmap_region": ("vma", "start", "end"),
    "move_page_tables": ("vma", "new", "start", "to", "locks"),
    "move_to_new_page": ("page", "new", "result"),
    "munlock_vma_page": ("page", "isolated"),
    "page_add_file_rmap": ("page", "compound"),
    "page_add_new_anon_rmap": ("page", "vma", "address", "compound"),
    "page_mkclean_one": ("page", "vma", "address", "cleaned"),
    "page_move_anon_rmap": ("page", "vma"),
    "page_referenced_one": ("page", "vma", "address", "referenced"),
    "page_remove_rmap": ("page", "compound"),
    "remove_huge_page": ("page", "mapping"),
    "remove_migration_pte": ("page", "vma", "address", "old"),
    "remove_migration_ptes": ("old", "new", "locked"),
    "retract_page_tables": ("vma", "address"),
    "rmap_walk": ("page",),
    "rmap_walk_locked": ("page",),
    "set_page_dirty": ("page",),
    "set_page_writeback": ("page",),
    "shift_arg_pages": ("vma", "start", "to"),
    "shmem_writepage": ("page", "mapping"),
    "shrink_page": ("page", "verdict"),
    "soft_offline_page": ("page", "flags", "error"),
    "split_huge_page": ("page", "result"),
    "split_vma": ("vma", "new", "address"),
    "stable_node_stale": ("page",),
    "stable_tree_append": ("page", "mm", "address"),
    "truncate_inode_page": ("page", "mapping"),
    "try_to_free_pages": ("cgroup", "reclaimed"),
    "try_to_merge_one_page": ("page", "vma", "kpage", "error"),
    "try_to_unmap": ("page", "flags", "unmapped"),
    "try_to_unmap_one": ("page", "vma", "address", "ok"),
    "unlink_anon_vmas": ("vma",),
    "unmap_and_move": ("page", "new", "result"),
    "unmap_and_move_huge_page": ("page", "new", "result"),
    "unmap_ref_private": ("page", "vma", "address"),
    "unpoison_memory": ("page",),
    "unuse_pte": ("page", "vma", "address", "result"),
    "update_and_free_page": ("page",),
    "vma_merge": ("merged", "start", "end"),
    "wp_page_copy": ("page", "vma", "address", "copied"),
    "wp_page_reuse": ("page", "vma", "address"),
    "write_cache_pages": ("mapping", "written"),
    "zap_huge_pmd": ("page", "vma", "address"),
}
#: Numbers that are shown in hexadecimal.
_HEX = frozenset(("page", "flags", "entry", "old", "kpage"))
_ADDRESSES = frozenset(("address", "start", "end", "to"))


def trace_line(
    name: str, arguments: tuple[Any, ...], place: Callable[[int], str], who: Callable[[Mm], str]
) -> str:
    """Return the line for a function and what it reports.

    Parameters
    ----------
    place, who
        What to call an address (``A+3``) and an address space.
    """
    names = ARGUMENTS.get(name, ())
    parts = [name]
    for at, argument in enumerate(arguments):
        label = names[at] if at < len(names) else f"arg{at}"
        parts.append(f"{label} {_value(label, argument, place, who)}")
    return f"{parts[0]:<24} {', '.join(parts[1:])}".rstrip()


def _value(label: str, argument: Any, place: Callable[[int], str], who: Callable[[Mm], str]) -> str:
    if argument is None:
        return "none"
    if isinstance(argument, AnonVma):
        return str(argument.handle)
    if isinstance(argument, Vma):
        pages = (argument.vm_end - argument.vm_start) >> 12
        return f"{who(argument.vm_mm)}:{place(int(argument.vm_start))}*{pages}"
    if isinstance(argument, Mm):
        return who(argument)
    if isinstance(argument, AddressSpace | MemCgroup | Task):
        return str(argument.name)
    if isinstance(argument, bool):
        return "yes" if argument else "no"
    if isinstance(argument, int):
        if label in _ADDRESSES:
            return place(argument)
        return hex(argument) if label in _HEX else str(argument)
    return str(argument)
