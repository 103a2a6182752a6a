# SPDX-License-Identifier: GPL-2.0-only
"""What must hold inside a world of the conformance corpus, whatever program made it.

Everything is counted again from the page-table entries and the VMAs; nothing that a world says of
itself is believed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

World = dict[str, Any]
Place = tuple[int, int]


def complaints(world: World) -> list[str]:
    """Return what is wrong in a world; nothing if it is sound."""
    return [*_vmas(world), *_anon_vmas(world), *_trees(world), *_pages(world)]


def _vmas(world: World) -> Iterator[str]:
    """VMAs are apart; each is on the chain of its anon_vma, and chains have one root."""
    anon_vmas = world["anon_vmas"]
    covered = Counter(
        (process, page) for process, start, end, *_ in world["vmas"] for page in range(start, end)
    )
    for place, times in covered.items():
        if times > 1:
            yield f"{place} lies in {times} VMAs"
    for number, (*_, own, chain) in enumerate(world["vmas"]):
        if len(set(chain)) != len(chain):
            yield f"VMA {number} is twice on a chain"
        if (own is None) != (not chain) or (own is not None and own not in chain):
            yield f"VMA {number}: anon_vma {own} and chain {chain} do not fit"
        if len({anon_vmas[other][0] for other in chain}) > 1:
            yield f"the chain of VMA {number} has several roots"


def _anon_vmas(world: World) -> Iterator[str]:
    """The counts of anon_vmas are what they count."""
    vmas, anon_vmas = world["vmas"], world["anon_vmas"]
    active = Counter(vma[6] for vma in vmas if vma[6] is not None)
    children = Counter(anon_vma[1] for anon_vma in anon_vmas)
    members = Counter(anon_vma[0] for anon_vma in anon_vmas)
    for number, (root, parent, references, nr_children, nr_active, _) in enumerate(anon_vmas):
        if nr_active != active[number]:
            yield f"anon_vma {number}: num_active_vmas {nr_active}, counted {active[number]}"
        if nr_children != children[number]:
            yield f"anon_vma {number}: num_children {nr_children}, counted {children[number]}"
        expected = members[number] if root == number else 1
        if references != expected:
            yield f"anon_vma {number}: refcount {references}, counted {expected}"
        if anon_vmas[root][0] != root or anon_vmas[parent][0] != root:
            yield f"anon_vma {number}: its root or parent is of another family"


def _trees(world: World) -> Iterator[str]:
    """Trees hold what names them, in the order of offsets."""
    vmas = world["vmas"]
    named = [
        (f"anon_vma {number}", anon_vma[5]) for number, anon_vma in enumerate(world["anon_vmas"])
    ]
    named += [(name, tree) for name, tree in world["files"]]
    belonging: dict[str, list[int]] = defaultdict(list)
    for number, vma in enumerate(vmas):
        for other in vma[7]:
            belonging[f"anon_vma {other}"].append(number)
        if vma[5] is not None:
            belonging[vma[5]].append(number)
    for name, tree in named:
        if not tree or sorted(tree) != belonging[name]:
            yield f"the tree of {name} is {tree}, and {belonging[name]} name it"
        elif any(vmas[one][4] > vmas[two][4] for one, two in pairwise(tree)):
            yield f"the tree of {name} is not in order"


def _pages(world: World) -> Iterator[str]:
    """Pages are counted as often as they are mapped, and the reverse map finds just that."""
    entries: dict[Place, tuple[int, int]] = {}
    mappings: dict[int, set[Place]] = defaultdict(set)
    for process, place, page, bits in world["ptes"]:
        entries[process, place] = (page, bits)
        mappings[page].add((process, place))
    files = dict(world["files"])
    for number, (kind, owner, index, mapcount, references, flags, _) in enumerate(world["pages"]):
        if kind == "z":
            continue
        mapped = mappings[number]
        if mapcount != len(mapped) or references != mapcount + (kind == "f"):
            yield f"page {number}: mapcount {mapcount}, refcount {references}, mapped {mapped}"
        if "x" in flags and mapcount > 1:
            yield f"page {number} is exclusive, and mapped {mapcount} times"
        tree = files[owner] if kind == "f" else world["anon_vmas"][owner][5]
        if (found := _walk(world, tree, index, number, entries)) != mapped:
            yield f"page {number}: the walk finds {found}, mapped {mapped}"
        for place in mapped:
            if entries[place][1] & 1 and kind == "a" and "x" not in flags:
                yield f"page {number} is writable at {place}, and not exclusive"


def _walk(
    world: World, tree: list[int], index: int, page: int, entries: dict[Place, tuple[int, int]]
) -> set[Place]:
    """Find the mappings of a page as rmap_walk() does."""
    found = set()
    for number in tree:
        process, start, end, _, pgoff = world["vmas"][number][:5]
        place = (process, start + index - pgoff)
        if pgoff <= index < pgoff + end - start and entries.get(place, (None, 0))[0] == page:
            found.add(place)
    return found
