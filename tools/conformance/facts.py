# SPDX-License-Identifier: GPL-2.0-only
"""A world as single facts, to say in which of them two worlds differ.

The numbers in a world shift when one thing more is there. Facts name things by where they are
instead: a VMA by process and start, an entry by process and page, a page by the first entry that
maps it, an anon_vma by the VMAs in its tree.
"""

from __future__ import annotations

from typing import Any

from tools.conformance.corpus import World

#: What a fact is about, and its value. Facts sort in the order in which they are worth reading.
Facts = dict[tuple[Any, ...], Any]

_KINDS = ("status", "live", "vma", "entry", "page", "anon_vma", "file")
_PAGE_FIELDS = ("kind", "owner", "index", "mapcount", "refcount", "flags", "value")
_ANON_VMA_FIELDS = ("root", "parent", "refcount", "num_children", "num_active_vmas")


def facts(world: World) -> Facts:
    """Return the facts of a world. Two worlds are equal exactly if their facts are."""
    found: Facts = {("live",): world["live"]}
    for operation, code, pages in world["status"]:
        found["status", operation] = (code, pages)
    vmas = [f"P{vma[0]}:{vma[1]}" for vma in world["vmas"]]
    names = _anon_vma_names(world, vmas)
    for name, vma in zip(vmas, world["vmas"], strict=True):
        for field, value in zip(("end", "flags", "pgoff", "file"), vma[2:6], strict=True):
            found["vma", name, field] = value
        found["vma", name, "anon_vma"] = None if vma[6] is None else names[vma[6]]
        found["vma", name, "chain"] = [names[number] for number in vma[7]]
    for name, anon_vma in zip(names, world["anon_vmas"], strict=True):
        values = [names[anon_vma[0]], names[anon_vma[1]], *anon_vma[2:5]]
        for field, value in zip(_ANON_VMA_FIELDS, values, strict=True):
            found["anon_vma", name, field] = value
    for name, tree in world["files"]:
        found["file", name, "tree"] = [vmas[number] if number >= 0 else "?" for number in tree]
    _entries(world, names, found)
    return found


def _anon_vma_names(world: World, vmas: list[str]) -> list[str]:
    """Name each anon_vma by its tree, in order; equal trees are told apart by their number."""
    names: list[str] = []
    for anon_vma in world["anon_vmas"]:
        tree = " ".join(vmas[number] if number >= 0 else "?" for number in anon_vma[5])
        same = sum(name.startswith(f"{{{tree}}}") for name in names)
        names.append(f"{{{tree}}}" + (f"#{same}" if same else ""))
    return names


def _entries(world: World, names: list[str], found: Facts) -> None:
    """Add the facts of page-table entries and pages."""
    first: dict[int, str] = {}
    for process, place, page, bits in world["ptes"]:
        name = f"P{process}:{place}"
        found["entry", name, "bits"] = _bits(bits)
        found["entry", name, "page"] = first.setdefault(page, name)
        if first[page] != name:
            continue
        for field, value in zip(_PAGE_FIELDS, world["pages"][page], strict=True):
            owned = field == "owner" and isinstance(value, int)
            found["page", name, field] = names[value] if owned else value


def _bits(bits: int) -> str:
    """Spell the bits of an entry."""
    words = ((1, "writable"), (2, "dirty"), (4, "accessed"), (8, "prot_none"))
    return "+".join(word for bit, word in words if bits & bit) or "-"


def differing(expected: Facts, got: Facts) -> list[tuple[Any, ...]]:
    """Return the facts that are not the same in both, those worth reading first at the front."""
    keys = {key for key in expected.keys() | got.keys() if expected.get(key) != got.get(key)}
    keys |= expected.keys() ^ got.keys()
    return sorted(keys, key=lambda key: (_KINDS.index(key[0]), [str(part) for part in key]))


def describe(key: tuple[Any, ...], expected: Facts, got: Facts) -> str:
    """Say in one line what a fact is, what the kernel had there, and what the model has."""
    values = [_value(found[key]) if key in found else "(not there)" for found in (expected, got)]
    return f"{' '.join(str(part) for part in key)}: kernel {values[0]}, model {values[1]}"


def _value(value: Any) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, list) else str(value)
