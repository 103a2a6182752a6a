# SPDX-License-Identifier: GPL-2.0-only
"""Small forests of anon_vmas, told by hand, of which every number can be checked on paper."""

from __future__ import annotations

from images import ANON, PAGE, World

from rmap.image import MemoryImage
from rmap.image.flags import Pte

AREA = 0x100000
INDEX = AREA // PAGE


def model() -> World:
    """An empty machine that a model could have exported."""
    return World(machine={"source": "model", "kernel_release": "4.18 (model)"})


def own_pages(world: World, pfn: int, owner: int, *indexes: int) -> None:
    """Describe anonymous pages that name an anon_vma, from frame ``pfn`` on."""
    for at, index in enumerate(indexes):
        mapping = world.anon_vmas[owner]["handle"] << 2 | 1
        world.pages(pfn + at, 1, ANON, mapping=mapping, index=index, anon_vma=owner)


def generations() -> MemoryImage:
    """P0 wrote four pages and forked P1, P1 forked P2; each child wrote one page of its own.

    ======  ========  =========  ==========================================
    VMA     own       chain      pages 0..3 (frame: whose)
    ======  ========  =========  ==========================================
    P0 A    1         1          0x20: 1   0x21: 1   0x22: 1   swapped
    P1 A    2         2 1        0x30: 2   0x21: 1   0x22: 1   swapped
    P2 A    3         3 2 1      0x30: 2   0x31: 3   0x22: 1   swapped
    ======  ========  =========  ==========================================
    """
    world = model()
    first = world.anon_vma(refcount=3, degree=3)
    second = world.anon_vma(first, degree=2)
    third = world.anon_vma(second, degree=1)
    p0 = world.process(1, "P0")
    area = p0.vma(AREA, 5, pgoff=INDEX, name="[anon:A]").map(AREA, 0x20, 0x21, 0x22)
    area.swap(AREA + 3 * PAGE, 7).hang(first)
    p1 = world.process(2, "P1", ppid=1)
    area = p1.vma(AREA, 5, pgoff=INDEX, name="[anon:A]").map(AREA, 0x30, 0x21, 0x22)
    area.swap(AREA + 3 * PAGE, 7).hang(second, first)
    p2 = world.process(3, "P2", ppid=2)
    area = p2.vma(AREA, 5, pgoff=INDEX, name="[anon:A]").map(AREA, 0x30, 0x31, 0x22)
    area.swap(AREA + 3 * PAGE, 7).hang(third, second, first)
    own_pages(world, 0x20, first, INDEX, INDEX + 1, INDEX + 2)
    own_pages(world, 0x30, second, INDEX)
    own_pages(world, 0x31, third, INDEX + 1)
    return world.build()


def server(children: int = 40) -> MemoryImage:
    """A process with a page, and children that have not written: their anon_vmas are alike."""
    world = model()
    root = world.anon_vma(refcount=1 + children, degree=2 + children)
    world.process(1, "server").vma(AREA, 1, pgoff=INDEX).map(AREA, 0x20).hang(root)
    own_pages(world, 0x20, root, INDEX)
    for at in range(children):
        child = world.anon_vma(root)
        worker = world.process(2 + at, f"worker{at}", ppid=1)
        worker.vma(AREA, 1, pgoff=INDEX).map(AREA, 0x20).hang(child, root)
    return world.build()


def unequal() -> MemoryImage:
    """What CVE-2022-42703 leaves: two VMAs of P5 with one anon_vma and different chains.

    The right half maps a page whose owner, anon_vma 4, is gone, and one of anon_vma 3, which is
    not in its chain.
    """
    world = model()
    first = world.anon_vma(refcount=3, degree=4)
    second = world.anon_vma(first, degree=3)
    third = world.anon_vma(second, degree=0)
    gone = world.anon_vma(second, refcount=0, degree=0)
    p5 = world.process(6, "P5")
    p5.vma(AREA, 2, pgoff=INDEX, name="[anon:A]").map(AREA, 0x20).hang(second, first)
    right = p5.vma(AREA + 2 * PAGE, 2, pgoff=INDEX + 2, name="[anon:A]", permissions="r--p")
    right.map(AREA + 2 * PAGE, 0x40, 0x41).hang(second)
    own_pages(world, 0x20, first, INDEX)
    own_pages(world, 0x40, gone, INDEX + 2)
    own_pages(world, 0x41, third, INDEX + 3)
    return world.build()


def several() -> MemoryImage:
    """Two areas of one process, one of them with the zero page, the other never written."""
    world = model()
    roots = [world.anon_vma(degree=2) for _ in range(2)]
    process = world.process(1, "init")
    for at, root in enumerate(roots):
        start = AREA * (1 + 2 * at)
        area = process.vma(start, 300, pgoff=start // PAGE, name=f"[anon:R{at}]").hang(root)
        area.map(start, 0x80 + at)
        area.map(start + PAGE, 0x30, flags=Pte.PRESENT | Pte.SPECIAL)
        own_pages(world, 0x80 + at, root, start // PAGE)
    return world.build()
