# SPDX-License-Identifier: GPL-2.0-only
"""Merged pages and what is wrong with them, found. Like `tests.model.test_check`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rmap.check import leftovers
from rmap.mm import bits
from rmap.mm.ksm.stable import ksm_of, page_stable_node
from rmap.mm.pgtable import pte_lookup
from rmap.model import Machine, Process

PAGE = 4096


class Merged:
    """Three pages of two contents for seven places of two processes and one's child."""

    def __init__(self) -> None:
        self.m = Machine(ram=128)
        self.k = self.m.kernel
        self.m.ksm.max_page_sharing = 2
        self.p, self.q = self.m.spawn("p"), self.m.spawn("q")
        self.a = self.p.mmap(4 * PAGE, addr=1 << 32)
        self.b = self.q.mmap(4 * PAGE, addr=1 << 32)
        for process in (self.p, self.q):
            for i, content in enumerate((b"x", b"x", b"y", b"z" + process.name.encode())):
                process.write(self.a + i * PAGE, content)
            process.madvise(self.a, 4 * PAGE, "mergeable")
        for _ in range(4):
            self.m.ksm.scan()
        self.child = self.q.fork("child")
        self.ksm = ksm_of(self.k)

    def page(self, process: Process, at: int) -> int:
        return process.pages(self.a + at * PAGE, 1)[0]

    def set_pte(self, process: Process, at: int, value: int) -> None:
        self.k.pt[pte_lookup(self.k, process.mm, self.a + at * PAGE)] = value

    def pte(self, process: Process, at: int) -> int:
        return int(self.k.pt[pte_lookup(self.k, process.mm, self.a + at * PAGE)])


Damage = Callable[[Merged], None]
DAMAGES: list[tuple[str, Damage]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Say which invariant a damage violates."""

    def register(damage: Damage) -> Damage:
        DAMAGES.append((invariant, damage))
        return damage

    return register


@breaks("ksm-nodes")
def a_node_is_in_no_tree(s: Merged) -> None:
    s.ksm.stable_tree.pop()


@breaks("ksm-nodes")
def the_tree_is_out_of_order(s: Merged) -> None:
    s.ksm.stable_tree.reverse()


@breaks("ksm-nodes")
def a_merged_page_changes(s: Merged) -> None:
    s.k.content[s.page(s.p, 0)] = b"other"


@breaks("ksm-nodes")
def an_item_is_not_counted(s: Merged) -> None:
    page_stable_node(s.k, s.page(s.p, 0)).rmap_hlist_len -= 1


@breaks("ksm-nodes")
def a_node_does_not_know_its_chain(s: Merged) -> None:
    page_stable_node(s.k, s.page(s.p, 0)).chain = None


@breaks("ksm-counters")
def a_saved_page_is_not_counted(s: Merged) -> None:
    s.ksm.pages_sharing -= 1


@breaks("ksm-counters")
def an_item_is_on_no_node(s: Merged) -> None:
    node = page_stable_node(s.k, s.page(s.p, 0))
    node.hlist.popitem()
    node.rmap_hlist_len -= 1


@breaks("ksm-reachable")
def a_merged_page_is_writable(s: Merged) -> None:
    s.set_pte(s.p, 0, s.pte(s.p, 0) | bits._PAGE_RW)


@breaks("ksm-reachable")
def a_place_has_no_item(s: Merged) -> None:
    node = page_stable_node(s.k, s.page(s.p, 2))
    del node.hlist[next(iter(node.hlist))]


@breaks("ksm-reachable")
def a_node_is_of_another_page(s: Merged) -> None:
    page_stable_node(s.k, s.page(s.p, 2)).kpfn += 1


@breaks("anon-refcount")
def an_item_has_no_reference(s: Merged) -> None:
    s.p.vmas[0].anon_vma.refcount -= 1


@pytest.mark.parametrize(
    ("invariant", "damage"), [pytest.param(name, run, id=run.__name__) for name, run in DAMAGES]
)
def test_damage_is_found(invariant: str, damage: Damage) -> None:
    scene = Merged()
    assert scene.m.check() == []
    damage(scene)
    found = {violation.invariant for violation in scene.m.check()}
    assert invariant in found


def test_the_scene_has_a_chain_and_a_page_that_is_forked() -> None:
    s = Merged()
    x, other, y = s.page(s.p, 0), s.page(s.q, 0), s.page(s.p, 2)
    assert s.ksm.stable_node_chains == 1
    assert [s.page(s.p, i) for i in range(3)] == [x, x, y]
    assert [s.page(s.q, i) for i in range(3)] == [other, other, y]
    assert [s.page(s.child, i) for i in range(3)] == [other, other, y]
    assert s.m.ksm.counters() == {
        "pages_shared": 3, "pages_sharing": 3, "pages_unshared": 2, "pages_volatile": 0,
        "full_scans": 4, "stable_node_chains": 1, "stable_node_dups": 2,
    }  # fmt: skip


def test_what_ksm_keeps_of_the_dead_is_told_until_ksmd_comes_by() -> None:
    s = Merged()
    for process in (s.p, s.q, s.child):
        process.exit()
    assert s.m.check() == []
    told = leftovers(s.k)
    assert "KSM has 8 items" in told
    assert "2 address spaces exist: [<mm 1 p>, <mm 2 q>]" in told
    s.m.ksm.scan()
    assert leftovers(s.k) == []
