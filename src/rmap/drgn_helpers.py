# SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
"""
Reverse Mapping
---------------

The ``rmap.drgn_helpers`` module provides helpers for drgn that go from a page to whoever maps it,
as :linux:`mm/rmap.c` and :linux:`mm/ksm.c` do.

>>> from rmap.drgn_helpers import *
>>> attach_btf(prog)  # only where the kernel's debugging symbols are not at hand
>>> for vma, address in page_mappings(pfn_to_page(0x1234)):
...     print(vma.vm_mm.owner.comm.string_(), hex(address))
...
b'shop' 0x7f58f7a01000
b'shop-worker/0' 0x7f58f7a01000

:func:`rmap_walk()` gives candidates, as in the kernel: places where the page would be if it were
mapped there. :func:`page_mappings()` gives those of them that page tables confirm.

Members of structures decide what a kernel does, not its version. What comes out of a dump may be
damaged: no list or tree is followed for ever. A node that is met twice raises
:class:`drgn.helpers.ValidationError`, one that is not there :class:`drgn.FaultError`.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from drgn import (
    FaultError,
    IntegerLike,
    Object,
    Program,
    cast,
    container_of,
    sizeof,
)
from drgn.helpers import ValidationError
from drgn.helpers.linux.mm import (
    PageHead,
    PageSlab,
    compound_head,
    compound_order,
    follow_pfn,
    page_to_pfn,
    virt_to_phys,
)

__all__ = (
    "PageAnon",
    "PageHugetlb",
    "PageKsm",
    "anon_vma_interval_tree_foreach",
    "attach_btf",
    "for_each_anon_vma",
    "for_each_anon_vma_vma",
    "ksm_rmap_items",
    "mm_mapped_pfn",
    "page_anon_vma",
    "page_mapping",
    "page_mappings",
    "page_pgoff",
    "page_stable_node",
    "rmap_walk",
    "vma_interval_tree_foreach",
)

_ANON, _MOVABLE, _KSM = 1, 2, 3
_ULONG_MAX = (1 << 64) - 1
#: Nodes of one list or tree beyond which it is taken to have no end.
_MOST_NODES = 1 << 22


def attach_btf(prog: Program, path: str | os.PathLike[str] | None = None) -> None:
    """
    Let a program of a kernel find types in BTF and symbols in kallsyms.

    Both are in the memory of most kernels (``CONFIG_DEBUG_INFO_BTF``, ``CONFIG_KALLSYMS``), so that
    a dump explains itself without any debugging symbols.

    :param prog: Program whose core dump, or other target, has been set.
    :param path: File with a raw ``.BTF`` section to use instead, such as a copy of
        ``/sys/kernel/btf/vmlinux``.
    :raises rmap.errors.ImageError: if the kernel has none, or they are not in the dump
    """
    from pathlib import Path

    from rmap.source.dump.program import DebugFiles, attach

    attach(prog, "the program", DebugFiles(btf=Path(path) if path is not None else None))


def PageAnon(page: Object) -> bool:
    """
    Return whether a page is anonymous memory, merged by KSM or not.

    :param page: ``struct page *``
    """
    return bool(_mapping_word(compound_head(page)) & _ANON)


def PageKsm(page: Object) -> bool:
    """
    Return whether a page was merged by KSM.

    :param page: ``struct page *``
    """
    return _mapping_word(compound_head(page)) & 3 == _KSM


def PageHugetlb(page: Object) -> bool:
    """
    Return whether a page is part of a huge page of hugetlbfs (``PageHuge()`` in the kernel).

    :param page: ``struct page *``
    """
    return _is_hugetlb(compound_head(page))


def page_anon_vma(page: Object) -> Object:
    """
    Get the anon_vma that an anonymous page belongs to.

    :param page: ``struct page *``
    :return: ``struct anon_vma *`` (``NULL`` if the page has none: it belongs to a file, to KSM, or
        to the kernel)
    """
    word = _mapping_word(compound_head(page))
    return Object(page.prog_, "struct anon_vma *", word - _ANON if word & 3 == _ANON else 0)


def page_mapping(page: Object) -> Object:
    """
    Get the address space of the file that a page belongs to.

    :param page: ``struct page *``
    :return: ``struct address_space *`` (``NULL`` if the page belongs to no file)
    """
    word = _mapping_word(compound_head(page))
    return Object(page.prog_, "struct address_space *", 0 if word & 3 else word)


def page_stable_node(page: Object) -> Object:
    """
    Get the node of KSM's stable tree that a merged page belongs to.

    :param page: ``struct page *``
    :return: ``struct ksm_stable_node *``, or before 5.19 ``struct stable_node *`` (``NULL`` if KSM
        has not merged the page)
    """
    word = _mapping_word(compound_head(page))
    kind = _ksm_struct(page.prog_, "stable_node")
    return Object(page.prog_, f"{kind} *", word & ~3 if word & 3 == _KSM else 0)


def page_pgoff(page: Object) -> int:
    """
    Get the place of a page in its file, or in the anonymous memory that it belongs to, in pages.

    A part of a compound page has its own: that of the head, and how far behind the head it is.

    :param page: ``struct page *``
    """
    head = compound_head(page)
    try:
        index = head.index.value_()
    except AttributeError:
        # Since 6.15 struct page keeps that name to struct folio.
        index = getattr(head, "__folio_index").value_()
    if _is_hugetlb(head) and _hugetlb_index_is_in_huge_pages(page.prog_):
        index <<= compound_order(head).value_()
    return int(index) + (page.value_() - head.value_()) // sizeof(page.type_.type)


def rmap_walk(page: Object, nr_pages: IntegerLike = 1) -> Iterator[tuple[Object, int]]:
    """
    Iterate over all places where a page could be mapped, as ``rmap_walk()`` does: by its anon_vma,
    by its file's tree of mappings, or by KSM's list of what it merged.

    These are candidates. A page of a file is in few of the processes that map that part of it, a
    child's VMA stays in the tree when the child has a copy of the page: :func:`page_mappings()`.

    :param page: ``struct page *``. It may be a part of a huge page, which then is looked for alone.
    :param nr_pages: Look for as many pages from this one on, for instance ``compound_nr(page)``.
        There is one address for each VMA: that of the first of these pages in it.
    :return: Iterator of (``struct vm_area_struct *``, address) tuples. There are none for pages
        that belong to no process and no file: free ones, slab, page tables, and their like.
    :raises ValidationError: if a tree or list has a loop
    """
    head = compound_head(page)
    word = _mapping_word(head)
    if not word or word & 3 == _MOVABLE:
        return
    if word & 3 == _KSM:
        yield from _walk_ksm(page_stable_node(page))
        return
    first = page_pgoff(page)
    last = first + max(operator.index(nr_pages), 1) - 1
    vmas = (
        for_each_anon_vma_vma(page_anon_vma(page), first, last)
        if word & _ANON
        else vma_interval_tree_foreach(page_mapping(page), first, last)
    )
    shift = page.prog_["PAGE_SHIFT"].value_()
    for vma in vmas:
        start, pgoff = vma.vm_start.value_(), vma.vm_pgoff.value_()
        yield vma, start + (max(first - pgoff, 0) << shift)


def page_mappings(page: Object) -> Iterator[tuple[Object, int]]:
    """
    Iterate over all places where a page is mapped: those of :func:`rmap_walk()` whose page tables
    say so.

    Mappings that the kernel does not count are not among them, such as those of a driver or of the
    zero page.

    :param page: ``struct page *``
    :return: Iterator of (``struct vm_area_struct *``, address) tuples.
    :raises ValidationError: if a tree or list has a loop
    """
    pfn = page_to_pfn(page).value_()
    for vma, address in rmap_walk(page):
        if mm_mapped_pfn(vma.vm_mm, address) == pfn:
            yield vma, address


def mm_mapped_pfn(mm: Object, address: IntegerLike) -> int | None:
    """
    Get the page frame that a virtual address is mapped to.

    Unlike :func:`~drgn.helpers.linux.mm.follow_pfn()`, this knows entries that the processor takes
    for absent and the kernel for present (``PROT_NONE``, and hints for NUMA balancing), on x86-64.

    :param mm: ``struct mm_struct *``
    :param address: ``void *``
    :return: Page frame number, or ``None`` if nothing is mapped there or the page tables are not in
        the dump.
    """
    prog = mm.prog_
    where = operator.index(address)
    try:
        if prog.platform is not None and prog.platform.arch.name == "X86_64":
            return _x86_64_mapped_pfn(prog, virt_to_phys(mm.pgd).value_(), where)
        return int(follow_pfn(mm, where).value_())
    except FaultError:
        return None


def for_each_anon_vma(vma: Object) -> Iterator[Object]:
    """
    Iterate over the anon_vmas that a VMA hangs on: its own, if it has one, and those of its
    ancestors whose pages it may still map.

    :param vma: ``struct vm_area_struct *``
    :return: Iterator of ``struct anon_vma *`` objects.
    :raises ValidationError: if the list has a loop
    """
    prog = vma.prog_
    kind = prog.type("struct anon_vma_chain")
    head = vma.anon_vma_chain.address_of_()
    seen: set[int] = set()
    node = head.next.read_()
    while node.value_() != head.value_():
        _meet(seen, node, "anon_vma_chain")
        entry = container_of(node, kind, "same_vma")
        yield entry.anon_vma.read_()
        node = node.next.read_()


def for_each_anon_vma_vma(
    anon_vma: Object, first: IntegerLike = 0, last: IntegerLike = _ULONG_MAX
) -> Iterator[Object]:
    """
    Iterate over the VMAs that may map pages of an anon_vma.

    :param anon_vma: ``struct anon_vma *``
    :param first: First index of a page (see :func:`page_pgoff()`) that the VMAs must cover.
    :param last: Last index.
    :return: Iterator of ``struct vm_area_struct *`` objects.
    :raises ValidationError: if the tree has a loop
    """
    for chain in anon_vma_interval_tree_foreach(anon_vma, first, last):
        yield chain.vma.read_()


def anon_vma_interval_tree_foreach(
    anon_vma: Object, first: IntegerLike = 0, last: IntegerLike = _ULONG_MAX
) -> Iterator[Object]:
    """
    Iterate over the edges between an anon_vma and VMAs, in the order of its interval tree.

    :param anon_vma: ``struct anon_vma *``
    :param first: First index of a page that the VMAs must cover.
    :param last: Last index.
    :return: Iterator of ``struct anon_vma_chain *`` objects.
    :raises ValidationError: if the tree has a loop
    """
    return _interval_tree(
        anon_vma.rb_root,
        "struct anon_vma_chain",
        "rb",
        (operator.index(first), operator.index(last)),
        lambda chain: chain.rb_subtree_last.value_(),
        lambda chain: _vma_interval(chain.vma),
    )


def vma_interval_tree_foreach(
    mapping: Object, first: IntegerLike = 0, last: IntegerLike = _ULONG_MAX
) -> Iterator[Object]:
    """
    Iterate over the VMAs that map a part of a file, in the order of its interval tree.

    :param mapping: ``struct address_space *``
    :param first: First page of the file that the VMAs must cover.
    :param last: Last page.
    :return: Iterator of ``struct vm_area_struct *`` objects.
    :raises ValidationError: if the tree has a loop
    """
    return _interval_tree(
        mapping.i_mmap,
        "struct vm_area_struct",
        "shared.rb",
        (operator.index(first), operator.index(last)),
        lambda vma: vma.shared.rb_subtree_last.value_(),
        _vma_interval,
    )


def ksm_rmap_items(stable_node: Object) -> Iterator[Object]:
    """
    Iterate over the places where KSM merged a page.

    :param stable_node: ``struct ksm_stable_node *``, or before 5.19 ``struct stable_node *``. Of
        one that heads a chain of duplicates, the places of all of them.
    :return: Iterator of ``struct ksm_rmap_item *``, or before 5.19 ``struct rmap_item *``, objects.
    :raises ValidationError: if the list has a loop
    """
    prog = stable_node.prog_
    node_type = prog.type(_ksm_struct(prog, "stable_node"))
    item_type = prog.type(_ksm_struct(prog, "rmap_item"))
    seen: set[int] = set()
    for head in _stable_nodes(stable_node, node_type, seen):
        node = head.hlist.first.read_()
        while node:
            _meet(seen, node, "rmap_item")
            yield container_of(node, item_type, "hlist")
            node = node.next.read_()


def _stable_nodes(stable_node: Object, kind: Any, seen: set[int]) -> Iterator[Object]:
    """Yield a node, or if it heads a chain, those that are in the chain."""
    # Without CONFIG_KSM's chains (before 4.13) there is no such member, and no chain.
    try:
        is_chain = stable_node.rmap_hlist_len.value_() < 0
    except AttributeError:
        is_chain = False
    if not is_chain:
        yield stable_node
        return
    node = stable_node.hlist.first.read_()
    while node:
        _meet(seen, node, "stable_node")
        yield container_of(node, kind, "hlist_dup")
        node = node.next.read_()


def _walk_ksm(stable_node: Object) -> Iterator[tuple[Object, int]]:
    """Yield places of a merged page: of each item those who merged it first, then their heirs."""
    prog = stable_node.prog_
    mask = ~(prog["PAGE_SIZE"].value_() - 1)
    given: set[tuple[int, int]] = set()
    items = list(ksm_rmap_items(stable_node))
    for heirs in (False, True):
        for item in items:
            address = item.address.value_() & mask
            mm = item.mm.value_()
            for vma in for_each_anon_vma_vma(item.anon_vma.read_()):
                if (mm != vma.vm_mm.value_()) is not heirs:
                    continue
                inside = vma.vm_start.value_() <= address < vma.vm_end.value_()
                place = (vma.value_(), address)
                if inside and place not in given:
                    given.add(place)
                    yield vma, address


def _meet(seen: set[int], node: Object, what: str) -> None:
    """Note a node. Raises `ValidationError` if it was met, or if there are more than can be."""
    at = node.value_()
    if at in seen:
        raise ValidationError(f"{what}: the node {at:#x} is met twice")
    seen.add(at)
    if len(seen) > _MOST_NODES:
        raise ValidationError(f"{what}: there are more than {_MOST_NODES} nodes")


def _vma_interval(vma: Object) -> tuple[int, int]:
    """The first and last index that a VMA covers."""
    first = vma.vm_pgoff.value_()
    size = vma.vm_end.value_() - vma.vm_start.value_()
    return first, first + size // vma.prog_["PAGE_SIZE"].value_() - 1


def _interval_tree(
    root: Object,
    kind: str,
    member: str,
    wanted: tuple[int, int],
    subtree_last: Callable[[Object], int],
    interval: Callable[[Object], tuple[int, int]],
) -> Iterator[Object]:
    """
    Yield what overlaps, in order (:linux:`include/linux/interval_tree_generic.h`). What a tree
    says of itself is believed, as the kernel does: below a node that says it ends before there is
    no search.
    """
    first, last = wanted
    prog = root.prog_
    entry_type = prog.type(kind)
    try:
        node = root.rb_root.rb_node.read_()
    except AttributeError:
        # Before 4.14 the first node was not kept beside the root.
        node = root.rb_node.read_()
    seen: set[int] = set()
    above: list[tuple[Object, Object]] = []
    while True:
        while node:
            _meet(seen, node, kind)
            entry = container_of(node, entry_type, member)
            if subtree_last(entry) < first:
                break
            above.append((node, entry))
            node = node.rb_left.read_()
        if not above:
            return
        node, entry = above.pop()
        start, end = interval(entry)
        if start > last:
            return
        if end >= first:
            yield entry
        node = node.rb_right.read_()


def _mapping_word(head: Object) -> int:
    """``page->mapping`` of a head, with its tags; 0 where that word is another thing."""
    # Pages with a type use the words that others have for mapping and index as they like. Those of
    # hugetlb are the exception: they have a type (since 6.9), and a mapping.
    if not _is_hugetlb(head) and (head._mapcount.counter.value_() < -1 or PageSlab(head)):
        return 0
    return int(head.mapping.value_())


def _constant(prog: Program, name: str) -> int | None:
    try:
        return int(prog.constant(name).value_())
    except LookupError:
        return None


def _cached(prog: Program, name: str, make: Callable[[], Any]) -> Any:
    """Something about a kernel, worked out once."""
    key = f"rmap.drgn_helpers.{name}"
    if key not in prog.cache:
        prog.cache[key] = make()
    return prog.cache[key]


def _is_hugetlb(head: Object) -> bool:
    test: Callable[[Object], bool] = _cached(
        head.prog_, "is_hugetlb", lambda: _hugetlb_test(head.prog_)
    )
    return test(head)


def _hugetlb_test(prog: Program) -> Callable[[Object], bool]:
    """How a head of hugetlb is told in this kernel."""
    kind = _constant(prog, "PGTY_hugetlb")
    if kind is not None:
        # Since 6.11 the type of a page is a number in the top byte of the word that counts
        # mappings.
        return lambda head: (head._mapcount.counter.value_() & 0xFFFFFFFF) >> 24 == kind
    destructor = _constant(prog, "HUGETLB_PAGE_DTOR")
    if destructor is not None:
        # Until 6.5 compound pages had a destructor, in the first tail (later also by that name in
        # struct folio).
        return lambda head: PageHead(head) and _destructor(head) == destructor
    flag = _constant(prog, "PG_hugetlb")
    if flag is not None and flag < 64:
        # In 6.6 to 6.8 it was a flag of the first tail.
        return lambda head: PageHead(head) and bool(head[1].flags.value_() >> flag & 1)
    # In 6.9 and 6.10 types were bits that are cleared, and macros; VMCOREINFO has this one.
    bit = ~_vmcoreinfo_number(prog, "PAGE_HUGETLB_MAPCOUNT_VALUE") & 0xFFFFFFFF
    return lambda head: _has_cleared_type(head._mapcount.counter.value_() & 0xFFFFFFFF, bit)


def _has_cleared_type(word: int, bit: int) -> bool:
    return bool(bit) and word & 0xF0000000 == 0xF0000000 and not word & bit


def _destructor(head: Object) -> int:
    try:
        return int(head[1].compound_dtor.value_())
    except AttributeError:
        return int(cast("struct folio *", head)._folio_dtor.value_())


def _vmcoreinfo_number(prog: Program, name: str) -> int:
    """A ``NUMBER()`` of VMCOREINFO, -1 if it has none of that name."""
    note = prog["VMCOREINFO"].string_().decode("ascii", "replace")
    found = re.search(rf"^NUMBER\({re.escape(name)}\)=(-?\w+)$", note, re.MULTILINE)
    return int(found[1], 0) if found else -1


def _hugetlb_index_is_in_huge_pages(prog: Program) -> bool:
    """
    Whether ``page->index`` of hugetlb counts huge pages. Linux kernel commit a08c7193e4f1
    ("mm/filemap: remove hugetlb special casing in filemap.c") (in v6.7) ended that, and took away
    the function that made up for it.
    """

    def has(name: str) -> bool:
        try:
            prog.symbol(name)
        except LookupError:
            return False
        return True

    names = ("hugetlb_basepage_index", "__basepage_index")
    return bool(_cached(prog, "huge_index", lambda: any(map(has, names))))


def _ksm_struct(prog: Program, name: str) -> str:
    """The name of one of KSM's structures, which begins with ``ksm_`` since 5.19."""

    def find() -> str:
        try:
            prog.type(f"struct ksm_{name}")
        except LookupError:
            return f"struct {name}"
        return f"struct ksm_{name}"

    return str(_cached(prog, f"ksm_{name}", find))


_PRESENT, _PSE, _PROTNONE = 1 << 0, 1 << 7, 1 << 8
_PFN_MASK = 0x000F_FFFF_FFFF_F000


def _x86_64_mapped_pfn(prog: Program, table: int, address: int) -> int | None:
    """Look an address up in page tables, as the kernel would (`pte_present()`, `pmd_present()`)."""
    levels: int = _cached(
        prog, "levels", lambda: 5 if _vmcoreinfo_number(prog, "pgtable_l5_enabled") == 1 else 4
    )
    for level in range(levels - 1, -1, -1):
        shift = 12 + 9 * level
        entry = prog.read_u64(table + (address >> shift & 511) * 8, True)
        if not entry & (_PRESENT | _PROTNONE) and not (level in (1, 2) and entry & _PSE):
            return None
        if level == 0 or (level in (1, 2) and entry & _PSE):
            # What the processor takes for absent holds its frame inverted, against L1TF.
            bits = entry if entry & _PRESENT else ~entry
            inside = (address >> 12) & ((1 << 9 * level) - 1)
            return ((bits & _PFN_MASK) >> 12 & ~((1 << 9 * level) - 1)) + inside
        if not entry & _PRESENT:
            return None
        table = entry & _PFN_MASK
    return None
