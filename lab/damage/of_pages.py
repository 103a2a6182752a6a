# SPDX-License-Identifier: GPL-2.0-only
"""Damage to struct pages and to entries of page tables."""

from __future__ import annotations

import numpy as np

from lab.damage.kinds import Hurt, hurt, kind
from lab.damage.scene import NotHere, Scene
from rmap.image.flags import Kpf, Pte
from rmap.source.dump.pages import ANON

PAGE = "struct page"
NOBODY = 0xFFFF_C000_DEAD_0000
_PFN = 0x000F_FFFF_FFFF_F000


def anon_entry(scene: Scene, times: int | None = 1, flags: int = 0) -> int:
    """A row of ``ptes``: of a small anonymous page that is mapped so often."""
    rows = scene.small(scene.mapped(anon=True, times=times, flags=flags))
    return scene.one(rows, "there is no such anonymous page")


def file_entry(scene: Scene) -> int:
    """A row of ``ptes``: of a small page of a file."""
    return scene.one(scene.small(scene.mapped(anon=False)), "there is no page of a file")


def huge_entry(scene: Scene) -> int:
    """A row of ``ptes``: of an anonymous huge page that is mapped as a whole."""
    return scene.one(scene.mapped(anon=True, order=9), "there is no huge page mapped as a whole")


def pfn_of(scene: Scene, row: int) -> int:
    return int(scene.image.ptes["pfn"][row])


def place(scene: Scene, row: int) -> int:
    return int(scene.image.ptes["address"][row])


def of_page(scene: Scene, pfn: int, what: str) -> Hurt:
    """The page is what was damaged; all that map it are affected."""
    rows = scene.image.reverse.mappings([pfn]).rows
    mms = set(scene.image.ptes["mm"][rows].tolist())
    pids = {pid for mm in mms for pid in scene.pids(mm)}
    return hurt(what, [pfn, scene.page(pfn)], pids)


def of_entry(scene: Scene, row: int, what: str, *pages: int) -> Hurt:
    """The entry is what was damaged."""
    mm = int(scene.image.ptes["mm"][row])
    named = [place(scene, row), pfn_of(scene, row), *pages,
             int(scene.reading.spaces.mm.address[mm])]  # fmt: skip
    return hurt(what, named, scene.pids(mm))


# ---------------------------------------------------------------- counts of pages


@kind("mapcount", "a page counts a mapping too many", "mapcount")
def mapcount(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    scene.add(PAGE, scene.page(pfn), "_mapcount.counter", 1)
    return of_page(scene, pfn, f"page {pfn:#x}: _mapcount + 1")


@kind("mapcount-none", "a mapped page says that nobody maps it", "mapcount")
def mapcount_none(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, file_entry(scene))
    scene.assign(PAGE, scene.page(pfn), "_mapcount.counter", -1)
    return of_page(scene, pfn, f"page {pfn:#x}: _mapcount = -1")


@kind("mapcount-of-tail", "a part of a huge page counts a mapping too many", "mapcount")
def mapcount_of_tail(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, huge_entry(scene)) + 77
    scene.add(PAGE, scene.page(pfn), "_mapcount.counter", 1)
    return of_page(scene, pfn, f"page {pfn:#x}: _mapcount + 1")


def _of_head(scene: Scene, path: str, delta: int) -> Hurt:
    pfn = pfn_of(scene, huge_entry(scene))
    kind = "struct folio"
    scene.add(kind, scene.page(pfn), path, delta)
    return of_page(scene, pfn, f"page {pfn:#x}: {path} {delta:+}")


@kind("entire-mapcount", "a huge page counts a mapping as a whole too many", "huge: entire")
def entire_mapcount(scene: Scene) -> Hurt:
    path = scene.reading.facts.compound_mapcount_path
    if path.startswith("_entire"):
        return _of_head(scene, path, 1)
    pfn = pfn_of(scene, huge_entry(scene))
    scene.add(PAGE, scene.page(pfn + 1), path, 1)
    return of_page(scene, pfn, f"page {pfn:#x}: {path} + 1")


@kind("large-mapcount", "the sum of a huge page's mappings is wrong", "huge: large")
def large_mapcount(scene: Scene) -> Hurt:
    return _of_head(scene, "_large_mapcount.counter", 1)


@kind("nr-pages-mapped", "a huge page miscounts its mapped parts", "huge: parts")
def nr_pages_mapped(scene: Scene) -> Hurt:
    return _of_head(scene, "_nr_pages_mapped.counter", 1)


@kind("refcount", "a page of a file has fewer references than mappings and cache hold",
      "state: references")  # fmt: skip
def refcount(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, file_entry(scene))
    held = int(scene.reading.pages.mapcount[int(scene.reading.pages.map.row_of(
        np.array([pfn], "u8"))[0])])  # fmt: skip
    scene.assign(PAGE, scene.page(pfn), "_refcount.counter", held)
    return of_page(scene, pfn, f"page {pfn:#x}: _refcount = {held}")


@kind("refcount-zero", "a mapped page has no reference", "state: references")
def refcount_zero(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    scene.assign(PAGE, scene.page(pfn), "_refcount.counter", 0)
    return of_page(scene, pfn, f"page {pfn:#x}: _refcount = 0")


# ---------------------------------------------------------------- owners of pages


@kind("mapping-tag", "an anonymous page's mapping lost its tag", "reach: nobody")
def mapping_tag(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    scene.add(PAGE, scene.page(pfn), "mapping", -1)
    return of_page(scene, pfn, f"page {pfn:#x}: mapping without PAGE_MAPPING_ANON")


@kind("mapping-other", "an anonymous page names another anon_vma", "reach: unreached")
def mapping_other(scene: Scene) -> Hurt:
    row = anon_entry(scene)
    pfn, vma = pfn_of(scene, row), int(scene.image.pte_vma[row])
    listed = scene.reading.anon
    mine = set(listed.listed["anon_vma"][listed.listed_vma == vma].tolist())
    others = [at for at in listed.listed["anon_vma"].tolist() if at not in mine]
    other = scene.one(others, "there is no other anon_vma")
    scene.assign(PAGE, scene.page(pfn), "mapping", other | int(ANON))
    return of_page(scene, pfn, f"page {pfn:#x}: mapping = {other:#x} | ANON")


@kind("mapping-garbage", "an anonymous page names no memory", "reach: nobody")
def mapping_garbage(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    scene.assign(PAGE, scene.page(pfn), "mapping", NOBODY | int(ANON))
    return of_page(scene, pfn, f"page {pfn:#x}: mapping = {NOBODY:#x} | ANON")


@kind("mapping-other-file", "a page of one file names another", "reach: unreached")
def mapping_other_file(scene: Scene) -> Hurt:
    row = file_entry(scene)
    pfn, vma = pfn_of(scene, row), int(scene.image.pte_vma[row])
    files = scene.reading.files
    others = [at for at in files.mappings.address.tolist()
              if at != files.mappings.address[files.of_vma[vma]]]  # fmt: skip
    scene.assign(PAGE, scene.page(pfn), "mapping", scene.one(others, "there is no other file"))
    return of_page(scene, pfn, f"page {pfn:#x}: mapping of another file")


def _index(scene: Scene, pfn: int) -> Hurt:
    path = "index" if scene.reading.facts.has(PAGE, "index") else "__folio_index"
    scene.add(PAGE, scene.page(pfn), path, 1)
    return of_page(scene, pfn, f"page {pfn:#x}: {path} + 1")


@kind("index", "an anonymous page has another index than its place", "reach: index")
def index(scene: Scene) -> Hurt:
    return _index(scene, pfn_of(scene, anon_entry(scene)))


@kind("index-of-file", "a page of a file has another index than its place", "reach: index")
def index_of_file(scene: Scene) -> Hurt:
    return _index(scene, pfn_of(scene, file_entry(scene)))


# ---------------------------------------------------------------- flags and types


def _flag(scene: Scene, pfn: int, name: str, on: bool = True) -> Hurt:
    mask = scene.reading.facts.flag(name)
    if not mask:
        raise NotHere(f"this kernel has no {name}")
    at = scene.page(pfn) + scene.member(PAGE, "flags")
    old = scene.word(at)
    scene.put(at, old | mask if on else old & ~mask)
    return of_page(scene, pfn, f"page {pfn:#x}: {name} {'set' if on else 'cleared'}")


def _typed(scene: Scene, pfn: int, name: str, cleared: int) -> Hurt:
    number = scene.reading.facts.constant(f"PGTY_{name}")
    word = 0xFFFF_FFFF & ~cleared if number is None else number << 24
    scene.assign(PAGE, scene.page(pfn), "_mapcount.counter", word)
    return of_page(scene, pfn, f"page {pfn:#x}: typed as {name}")


@kind("type-buddy", "a mapped page is typed as a free one", "state: free")
def type_buddy(scene: Scene) -> Hurt:
    return _typed(scene, pfn_of(scene, anon_entry(scene)), "buddy", 0x80)


@kind("type-slab", "a mapped page is typed as slab", "state: slab")
def type_slab(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    if scene.reading.facts.constant("PGTY_slab") is None:
        return _flag(scene, pfn, "PG_slab")
    return _typed(scene, pfn, "slab", 0)


@kind("flag-lists", "a page is on the active list and unevictable", "state: lists")
def flag_lists(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, anon_entry(scene))
    _flag(scene, pfn, "PG_unevictable")
    return _flag(scene, pfn, "PG_active")


@kind("flag-reserved", "an anonymous page is reserved", "state: reserved")
def flag_reserved(scene: Scene) -> Hurt:
    return _flag(scene, pfn_of(scene, anon_entry(scene)), "PG_reserved")


@kind("flag-uptodate", "a mapped anonymous page is not up to date", "state: uptodate")
def flag_uptodate(scene: Scene) -> Hurt:
    return _flag(scene, pfn_of(scene, anon_entry(scene)), "PG_uptodate", False)


@kind("flag-swapcache", "a page is in the swap cache, and no slot knows", "swap: cache")
def flag_swapcache(scene: Scene) -> Hurt:
    return _flag(scene, pfn_of(scene, anon_entry(scene)), "PG_swapcache")


@kind("flag-exclusive", "a page that several map is exclusive to one", "state: exclusive")
def flag_exclusive(scene: Scene) -> Hurt:
    return _flag(scene, pfn_of(scene, anon_entry(scene, 2)), "PG_anon_exclusive")


@kind("flag-not-exclusive", "a page that is writable is not exclusive", "state: writable")
def flag_not_exclusive(scene: Scene) -> Hurt:
    row = anon_entry(scene, 1, int(Pte.WRITE))
    return _flag(scene, pfn_of(scene, row), "PG_anon_exclusive", False)


@kind("flag-head", "the head of a huge page lost its flag", "huge: order")
def flag_head(scene: Scene) -> Hurt:
    return _flag(scene, pfn_of(scene, huge_entry(scene)), "PG_head", False)


@kind("compound-head", "a part of a huge page names another head", "huge: head")
def compound_head(scene: Scene) -> Hurt:
    pfn = pfn_of(scene, huge_entry(scene)) + 300
    path = "compound_head" if scene.reading.facts.has(PAGE, "compound_head") else "compound_info"
    scene.assign(PAGE, scene.page(pfn), path, scene.page(pfn - 299) | 1)
    return of_page(scene, pfn, f"page {pfn:#x}: compound_head = its sibling")


@kind("lru-link", "a page's link to the next of its list leads to another", "damage: back link")
def lru_link(scene: Scene) -> Hurt:
    pages = scene.reading.pages
    on = pages.kpf & np.uint64(Kpf.LRU | Kpf.UNEVICTABLE) == np.uint64(Kpf.LRU)
    rows = np.flatnonzero(on & (pages.head == np.arange(len(on))) & (pages.mapcount > 0))
    pfn = int(pages.map.pfn[scene.one(rows, "no page is on a list")])
    link = scene.page(pfn) + scene.member(PAGE, "lru")
    scene.put(link, link)
    return of_page(scene, pfn, f"page {pfn:#x}: lru.next = itself")


# ---------------------------------------------------------------- entries


def _point(scene: Scene, at: int, physical: int) -> None:
    """Let an entry, at any level, lead to other memory; its flags stay."""
    scene.put_physical(at, scene.word_physical(at) & ~_PFN | physical)


@kind("pte-redirected", "an entry maps another page", "mapcount", "reach: unreached")
def pte_redirected(scene: Scene) -> Hurt:
    row = anon_entry(scene)
    others = scene.small(scene.mapped(anon=True, times=1))
    other = pfn_of(scene, scene.one(others[others != row], "there is no other page", 0.9))
    at = scene.entry(row)
    _point(scene, at, other << 12)
    return of_entry(scene, row, f"entry at {place(scene, row):#x}: page {other:#x}", other)


@kind("pte-dropped", "an entry is gone", "mapcount", "rss")
def pte_dropped(scene: Scene) -> Hurt:
    row = anon_entry(scene, 2)
    scene.put_physical(scene.entry(row), 0)
    return of_entry(scene, row, f"entry at {place(scene, row):#x}: cleared")


@kind("pte-added", "an entry maps a page once more", "mapcount")
def pte_added(scene: Scene) -> Hurt:
    row = anon_entry(scene)
    here = scene.entry(row)
    table = here & ~0xFFF
    for at in range(table, table + 4096, 8):
        if not scene.word_physical(at):
            scene.put_physical(at, scene.word_physical(here))
            return of_entry(scene, row, f"entry beside {place(scene, row):#x}: the same page")
    raise NotHere("there is no room beside the entry")


@kind("pte-beyond", "an entry maps a page that there is not", "reach: beyond")
def pte_beyond(scene: Scene) -> Hurt:
    row = anon_entry(scene)
    at = scene.entry(row)
    scene.put_physical(at, scene.word_physical(at) | 1 << 42)
    return of_entry(scene, row, f"entry at {place(scene, row):#x}: beyond memory")


@kind("pte-writable", "an entry may be written where the VMA may not", "state: write")
def pte_writable(scene: Scene) -> Hurt:
    rows = scene.small(scene.mapped(anon=False))
    may = scene.image.vmas["flags"][scene.image.pte_vma[rows]] & np.uint64(2) != 0
    row = scene.one(rows[~may], "there is no page of a file that is read only")
    at = scene.entry(row)
    scene.put_physical(at, scene.word_physical(at) | 2)
    return of_entry(scene, row, f"entry at {place(scene, row):#x}: writable")


@kind("pmd-redirected", "a huge entry maps another huge page", "mapcount", "reach: unreached",
      "huge: entire")  # fmt: skip
def pmd_redirected(scene: Scene) -> Hurt:
    row = huge_entry(scene)
    ptes = scene.image.ptes
    others = np.flatnonzero((ptes["order"] == 9) & (ptes["pfn"] != ptes["pfn"][row]))
    other = pfn_of(scene, scene.one(others, "there is no other huge page"))
    at = scene.entry(row)
    _point(scene, at, other << 12)
    return of_entry(scene, row, f"huge entry at {place(scene, row):#x}: page {other:#x}", other)


@kind("pmd-of-small-pages", "a huge entry maps small pages", "huge: order")
def pmd_of_small_pages(scene: Scene) -> Hurt:
    row = huge_entry(scene)
    small = pfn_of(scene, anon_entry(scene)) & ~511
    at = scene.entry(row)
    _point(scene, at, small << 12)
    return of_entry(scene, row, f"huge entry at {place(scene, row):#x}: small pages", small)


@kind("table-redirected", "an upper level leads to another table", "damage: table")
def table_redirected(scene: Scene) -> Hurt:
    one = anon_entry(scene)
    ptes = scene.image.ptes
    rows = scene.small(scene.mapped(anon=True))
    far = rows[(ptes["address"][rows] >> np.uint64(21)
                != ptes["address"][one] >> np.uint64(21))]  # fmt: skip
    two = scene.one(far, "there is one table only")
    physical = _upper(scene, one)
    table = scene.entry(two) & ~0xFFF
    _point(scene, physical, table)
    mm = int(ptes["mm"][one])
    return hurt("a PMD leads to another table", [table, table >> 12], scene.pids(mm))


def _upper(scene: Scene, row: int) -> int:
    """The physical address of the entry that leads to the table of an entry."""
    table = scene.entry(row) & ~0xFFF
    for physical, values in list(scene.tables._known.items()):
        if values is None:
            continue
        slots = np.flatnonzero((values & np.uint64(_PFN | 0x81)) == np.uint64(table | 1))
        if len(slots):
            return physical + int(slots[0]) * 8
    raise NotHere("nothing leads to the table")


@kind("table-garbage", "an upper level leads to no memory", "damage: missing")
def table_garbage(scene: Scene) -> Hurt:
    row = anon_entry(scene)
    at = _upper(scene, row)
    lost = 0xABCDE << 20
    _point(scene, at, lost)
    mm = int(scene.image.ptes["mm"][row])
    return hurt(
        f"a PMD leads to {lost:#x}",
        [lost, lost >> 12, int(scene.reading.spaces.mm.address[mm])],
        scene.pids(mm),
    )
