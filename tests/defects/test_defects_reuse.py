# SPDX-License-Identifier: GPL-2.0-only
"""anon_vmas that are used again: endless growth (D6), its repair, and what that broke (D1).

D6 (2010-2014). Since 5beb49305251 each process has an anon_vma of its own besides those of all its
ancestors. A process that forks and exits, whose child does the same, left one for each generation,
and every VMA was tied to all of them. 7a3ef208e662 (3.19) lets a child take one over that is hardly
used any more.

D1, CVE-2022-42703. What "hardly used" means was read off one counter, `degree`, in which children
and VMAs look the same. So an anon_vma could be taken over while a VMA owned it, two VMAs had one
anon_vma and different chains, and merging them dropped the chain that kept a page's anon_vma alive.
2555283eb40d (6.0; 5.15.65, 4.19.257, 4.14.292, 4.9.327) counts them apart.
"""

from __future__ import annotations

import pytest
from faulting import PAGE, Faulting

from rmap.mm.anon_vma import ReuseRule
from rmap.mm.mm_types import AnonVma, Kernel, Vma
from rmap.model import Process


def chain(p: Process, address: int) -> list[AnonVma]:
    """The anon_vmas that a VMA is tied to."""
    vma = p.vma_at(address)
    assert vma is not None
    return [avc.anon_vma for avc in vma.anon_vma_chain]


def owner(p: Process, address: int) -> AnonVma:
    """The anon_vma that a VMA writes new pages for."""
    vma = p.vma_at(address)
    assert vma is not None
    return vma.anon_vma


# ---------------------------------------------------------------- D6


class NeverReuse(ReuseRule):
    """As before 3.19."""

    def may_reuse(self, k: Kernel, dst: Vma, src: Vma, anon_vma: AnonVma) -> bool:
        return False


@pytest.mark.parametrize("fixed", [False, True])
def test_generations_of_processes_left_one_anon_vma_each(fixed: bool) -> None:
    f = Faulting()
    if not fixed:
        f.k.reuse_rule = NeverReuse()
    a = f.map(1)
    f.p.write(a, b"x")
    p = f.p
    for _ in range(40):
        child = p.fork()
        p.exit()
        p = child
    assert len(chain(p, a)) == (3 if fixed else 41)


# ---------------------------------------------------------------- D1


def test_an_owner_counts_like_a_child() -> None:
    """The heart of it: the second fork takes over what a living process owns already."""
    for separate in (False, True):
        f = Faulting(separate_reuse_counters=separate)
        a = f.map(1)
        f.p.write(a, b"x")
        c1 = f.p.fork("c1")
        c2 = c1.fork("c2")
        a2 = owner(c2, a)
        c1.exit()
        c3 = c2.fork("c3")
        c2.exit()
        c4, c5 = c3.fork("c4"), c3.fork("c5")
        assert owner(c4, a) is a2
        assert (owner(c5, a) is a2) is (not separate)


def six_generations(f: Faulting) -> tuple[Process, Process, int]:
    """The shortest sequence known: the last two processes, and their four pages.

    Where it is defective, the last one's halves have one anon_vma and two chains.
    """
    a = f.map(4)
    f.p.touch(a, 4 * PAGE)
    p1 = f.p.fork("p1")
    p2 = p1.fork("p2")
    p1.exit()
    p3 = p2.fork("p3")
    # The split holds the count of p2's anon_vma at two while p3 forks, and lets go after that.
    p2.mprotect(a + 2 * PAGE, 2 * PAGE, "r")
    p3.mprotect(a + 2 * PAGE, 2 * PAGE, "r")
    p4 = p3.fork("p4")
    p2.exit()
    return p4, p4.fork("p5"), a


def test_two_vmas_with_one_anon_vma_and_different_chains() -> None:
    f = Faulting()
    _p4, p5, a = six_generations(f)
    left, right = a, a + 2 * PAGE
    assert owner(p5, left) is owner(p5, right)
    assert chain(p5, left) != chain(p5, right)
    assert [found.invariant for found in f.m.check()] == ["same-chain"]
    repaired = Faulting(separate_reuse_counters=True)
    _p4, p5, a = six_generations(repaired)
    assert owner(p5, a) is not owner(p5, a + 2 * PAGE)
    assert repaired.sound()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_page_outlives_its_anon_vma(fixed: bool) -> None:
    """To the end: a page that p4 wrote is mapped by p5, whose merge drops what kept it findable."""
    f = Faulting(separate_reuse_counters=fixed)
    p4, p5, a = six_generations(f)
    p5.exit()
    right = a + 2 * PAGE
    p4.mprotect(right, 2 * PAGE, "rw")
    p4.write(right, b"by p4")
    page = f.page(p4, right)
    p4.mprotect(right, 2 * PAGE, "r")
    p5 = p4.fork("p5")
    named = f.named(page)
    # p5's halves become alike, and are merged: equal anon_vmas are taken for equal chains.
    p5.mprotect(right, 2 * PAGE, "rw")
    merged = len(p5.vmas) == 1
    assert merged is (not fixed)
    p4.exit()
    assert f.page(p5, right) == page
    assert p5.read(right, 5) == b"by p4"
    if fixed:
        assert named in chain(p5, right)
        assert f.sound()
    else:
        assert named in f.k.anon_vma_free
        assert any(found.invariant == "reachable" for found in f.m.check())
