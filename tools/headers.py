# SPDX-License-Identifier: GPL-2.0-only
"""Write the headers that say again what a module says: ``python tools/headers.py``.

Each ``bits.pxd`` has the constants of its ``bits.py`` as C macros, with the type that keeps all
bits. ``mm/inline.pxd`` has the small accessors of `INLINE` once more, as inline functions: a call
from one compiled module into another cannot be inlined, and a walk of the reverse map makes dozens
for each page-table entry. To write these things twice by hand would be to get one of them wrong
once. ``--check`` writes nothing and says what is not current.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = [ROOT / "src" / "rmap" / layer / "bits.py" for layer in ("sync", "mm")]
MM = ROOT / "src" / "rmap" / "mm"
#: What ``mm/inline.pxd`` has of each module; what a function calls stands before it. These modules
#: do not import it themselves.
INLINE = {
    "page": (
        "SetPage",
        "ClearPage",
        "TestClearPage",
        "TestSetPage",
        "PageFlag",
        "PageHead",
        "compound_head",
        "page_mapping_word",
        "PageAnon",
        "PageKsm",
        "PageLocked",
        "PageSwapBacked",
        "PageSwapCache",
        "PageDirty",
        "PageMlocked",
        "PageHWPoison",
        "PageTail",
        "PageCompound",
        "PageTransCompound",
        "PageTransHuge",
        "PageHuge",
        "compound_order",
        "hpage_nr_pages",
        "mapcount_inc_and_test",
        "mapcount_add_negative",
        "compound_mapcount",
        "PageDoubleMap",
        "total_mapcount",
        "page_mapped",
        "page_rmapping",
        "page_private",
        "page_count",
        "mapcount_set",
        "set_page_mapping",
        "set_page_index",
        "get_page",
        "put_page_testzero",
        "page_index",
        "page_to_pgoff",
        "is_zone_device_page",
        "is_device_private_page",
        "mod_node_page_state",
    ),
    "mm_inline": (
        "page_is_file_cache",
        "page_lru_base_type",
        "page_lru",
        "page_off_lru",
        "mem_cgroup_page_lruvec",
        "update_lru_size",
        "add_page_to_lru_list",
        "del_page_from_lru_list",
        "update_page_reclaim_stat",
    ),
    "pgtable": (
        "pte_none",
        "pte_present",
        "is_swap_pte",
        "pte_young",
        "pte_dirty",
        "pte_write",
        "pte_soft_dirty",
        "pte_unused",
        "pte_pfn",
        "pfn_pte",
        "pte_mkdirty",
        "pte_mkwrite",
        "pte_mkyoung",
        "pte_swp_mksoft_dirty",
        "pmd_present",
        "pmd_trans_huge",
        "is_swap_pmd",
        "swp_type",
        "swp_offset",
        "swp_entry_to_pte",
        "pte_to_swp_entry",
        "is_migration_entry",
        "is_device_private_entry",
        "is_pmd_migration_entry",
        "_descend",
        "pmd_offset",
        "pte_offset",
        "ptl_of",
        "pte_lock",
        "pte_unlock",
        "ptep_get",
        "set_pte_at",
        "ptep_get_and_clear",
    ),
    "tlb": (
        "inc_mm_tlb_gen",
        "flush_tlb_page",
        "ptep_test_and_clear_young",
        "ptep_clear_flush",
        "ptep_clear_flush_young",
        "should_defer_flush",
    ),
    "mmu_notifier": (
        "mmu_notifier_invalidate_range_start",
        "mmu_notifier_invalidate_range",
        "ptep_clear_flush_young_notify",
    ),
    "vma": (
        "linear_page_index",
        "vma_page_address",
        "vma_address",
        "userfaultfd_armed",
        "mm_counter_file",
        "mm_counter",
        "get_mm_rss",
        "update_hiwater_rss",
        "inc_mm_counter",
        "dec_mm_counter",
    ),
}

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# Made from bits.py by tools/headers.py; do not edit.
from rmap.scalar cimport i32, u64

cdef extern from *:
    '''
"""


def constants(path: Path) -> dict[str, int]:
    """The integer constants of a module of constants, in order."""
    spec = importlib.util.spec_from_file_location("_bits", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if type(value) is int}


def macro(name: str) -> str:
    """The C name of a constant: prefixed, lest it meet one of the C library's."""
    return f"RMAP_{name.lstrip('_')}"


def header(values: dict[str, int]) -> str:
    """The text of the ``.pxd``: small values are C ints, so that they mix with signed counts."""
    small = {name for name, value in values.items() if value < 1 << 16}
    defines = "".join(
        f"    #define {macro(name)} {value:#x}{'' if name in small else 'ULL'}\n"
        for name, value in values.items()
    )
    declared = "".join(
        f'    {"i32" if name in small else "u64"} {name} "{macro(name)}"\n' for name in values
    )
    return f"{HEAD}{defines}    '''\n{declared}"


INLINE_HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# cython: language_level=3, boundscheck=True, wraparound=False, nonecheck=True, cdivision=True
# Made by tools/headers.py from the modules that it names; do not edit.
from rmap.mm.bits cimport *
from rmap.sync.bits cimport *
from rmap.scalar cimport flag, i32, i64, u32, u64
from rmap.sync.core cimport lock_acquired, lock_released, sched, sched_point
from rmap.mm.bug cimport BUG_PAGE
from rmap.mm.mm_types cimport AddressSpace, Kernel, LruVec, MemCgroup, Mm, Vma
from rmap.mm.mmu_notifier cimport MmuNotifier, _log, _tell_clear_flush_young
from rmap.mm.pgtable cimport _wait_for_table
from rmap.mm.tlb cimport _flush_tlb_cpus
"""


def inline_header() -> str:
    """The text of ``mm/inline.pxd``. Raises `ValueError` for a function that is not there."""
    functions = (text for module, names in INLINE.items() for text in inlined(module, names))
    return INLINE_HEAD + "\n".join(("", *functions))


def inlined(module: str, names: tuple[str, ...]) -> Iterator[str]:
    """Functions of a module as inline ones: the signature of its ``.pxd``, the body of its ``.py``.

    Raises `ValueError` for a function that is not there.
    """
    source = (MM / f"{module}.py").read_text(encoding="utf-8")
    declared = (MM / f"{module}.pxd").read_text(encoding="utf-8")
    defined = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}
    for name in names:
        signature = re.search(rf"^c(?:p)?def (.*\b{name}\(.*)$", declared, re.MULTILINE)
        if signature is None or name not in defined:
            raise ValueError(f"{module}.py and its header have no {name}() on one line")
        body = defined[name].body
        if ast.get_docstring(defined[name]) is not None:
            body = body[1:]
        lines = source.splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
        yield "\n".join((f"cdef inline {signature[1]}:", *lines, ""))


def headers() -> Iterator[tuple[Path, str]]:
    """Every header that is made, and what it has to be."""
    for module in MODULES:
        yield module.with_suffix(".pxd"), header(constants(module))
    yield MM / "inline.pxd", inline_header()


def main(arguments: list[str]) -> int:
    """Write the headers, or with ``--check`` say which is not current; returns the exit status."""
    stale = 0
    for target, text in headers():
        if "--check" not in arguments:
            target.write_text(text, encoding="utf-8")
        elif target.read_text(encoding="utf-8") != text:
            print(f"{target.relative_to(ROOT)} is not current: run python tools/headers.py")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
