# SPDX-License-Identifier: GPL-2.0-only
"""Random processes whose few contents KSM merges: what is read is what was stored, whatever it did.

After every step all counters are recounted, and the walk of every merged page finds exactly the
entries that map it.
"""

from __future__ import annotations

import pytest
from faulting import ARENA, PAGE
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from merging import Merging

from rmap.mm.bits import VM_MERGEABLE
from rmap.model import Pin, Process

PAGES = 4
CONTENTS = (b"", b"same", b"other", b"third")
places = st.integers(0, PAGES - 1)
chosen = st.integers(0, 7)


class Merged(RuleBasedStateMachine):
    """Processes over the same pages of the arena; `held` is what each page of each should hold."""

    base = "4.18"
    limit = 256

    def __init__(self) -> None:
        super().__init__()
        self.f = Merging(ram=128, swap=64, base=self.base, ksm_names_node_last=True)
        self.held: dict[int, list[bytes]] = {}
        self.pins: list[Pin] = []
        self.named = 0

    @initialize(zero=st.booleans())
    def begin(self, zero: bool) -> None:
        self.f.m.ksm.max_page_sharing = self.limit
        self.f.m.ksm.use_zero_pages = zero
        self.f.p.exit()
        self.start()

    @property
    def processes(self) -> list[Process]:
        return list(self.f.m.processes.values())

    def name(self, kind: str) -> str:
        """A name that no other process ever had."""
        self.named += 1
        return f"{kind}{self.named}"

    def pick(self, number: int) -> Process:
        return self.processes[number % len(self.processes)]

    @rule()
    @precondition(lambda self: len(self.processes) < 4)
    def start(self) -> None:
        process = self.f.m.spawn(self.name("p"))
        process.mmap(PAGES * PAGE, addr=ARENA)
        process.madvise(ARENA, PAGES * PAGE, "mergeable")
        self.held[process.pid] = [b""] * PAGES

    @rule(who=chosen)
    @precondition(lambda self: 0 < len(self.processes) < 5)
    def fork(self, who: int) -> None:
        parent = self.pick(who)
        child = parent.fork(self.name("c"))
        self.held[child.pid] = list(self.held[parent.pid])

    @rule(who=chosen, first=places, count=places, content=st.sampled_from(CONTENTS))
    @precondition(lambda self: self.processes)
    def write(self, who: int, first: int, count: int, content: bytes) -> None:
        process = self.pick(who)
        for page in range(first, min(first + count + 1, PAGES)):
            process.write(self.f.at(page), content.ljust(8, b"\0"))
            self.held[process.pid][page] = content

    @rule(who=chosen, page=places)
    @precondition(lambda self: self.processes)
    def read(self, who: int, page: int) -> None:
        process = self.pick(who)
        stored = self.held[process.pid][page].ljust(8, b"\0")
        assert process.read(self.f.at(page), 8) == stored

    @rule(pages=st.integers(1, 6))
    def scan(self, pages: int) -> None:
        self.f.m.ksm.scan(pages)

    @rule(rounds=st.integers(1, 3))
    def rounds(self, rounds: int) -> None:
        self.f.rounds(rounds)

    @rule()
    def settle(self) -> None:
        """After a whole round the walk finds every place in memory that is offered still."""
        f = self.f
        f.rounds(2)
        for node in f.ksm.stable_nodes:
            if node is None or f.node(node.kpfn) is not node:
                continue
            missed = f.mapped(node.kpfn) - set(f.walked(node.kpfn))
            for process in self.processes:
                offered = {
                    (process.name, (address - ARENA) // PAGE)
                    for vma in process.vmas
                    if vma.vm_flags & VM_MERGEABLE
                    for address in range(vma.vm_start, vma.vm_end, PAGE)
                }
                assert not missed & offered

    @rule(who=chosen, page=places)
    @precondition(lambda self: self.processes)
    def drop(self, who: int, page: int) -> None:
        process = self.pick(who)
        process.madvise(self.f.at(page), PAGE, "dontneed")
        self.held[process.pid][page] = b""

    @rule(who=chosen, page=places, advice=st.sampled_from(("mergeable", "unmergeable")))
    @precondition(lambda self: self.processes)
    def advise(self, who: int, page: int, advice: str) -> None:
        self.pick(who).madvise(self.f.at(page), PAGE, advice)

    @rule(who=chosen, page=places)
    @precondition(lambda self: self.processes)
    def remap(self, who: int, page: int) -> None:
        """Away and back, by which the page is taken apart."""
        process = self.pick(who)
        far = ARENA + 512 * PAGE
        process.mremap(self.f.at(page), PAGE, PAGE, new_addr=far)
        process.mremap(far, PAGE, PAGE, new_addr=self.f.at(page))

    @rule(who=chosen, page=places)
    @precondition(lambda self: self.processes and len(self.pins) < 2)
    def pin(self, who: int, page: int) -> None:
        self.pins.append(self.pick(who).pin(self.f.at(page), PAGE))

    @rule()
    @precondition(lambda self: self.pins)
    def unpin(self) -> None:
        self.pins.pop().release()

    @rule(pages=st.integers(1, 16))
    def reclaim(self, pages: int) -> None:
        self.f.m.page_referenced(range(1, int(self.f.k.free_next)))
        self.f.m.age(pages)
        self.f.m.reclaim(pages)

    @rule(prune=st.sampled_from((0, 2000)))
    def prune(self, prune: int) -> None:
        self.f.m.ksm.stable_node_chains_prune_millisecs = prune

    @rule()
    def unmerge(self) -> None:
        self.f.m.ksm.run = "unmerge"
        assert self.f.ksm.rmap_items == 0
        self.f.m.ksm.run = "run"

    @rule(who=chosen)
    @precondition(lambda self: len(self.processes) > 1)
    def exit(self, who: int) -> None:
        process = self.pick(who)
        del self.held[process.pid]
        process.exit()

    @invariant()
    def sound(self) -> None:
        f = self.f
        assert f.m.check() == []
        assert [w for w in f.m.warnings if "remove_stable_node" not in str(w)] == []
        for node in f.ksm.stable_nodes:
            if node is None or f.node(node.kpfn) is not node:
                continue
            walked, mapped = set(f.walked(node.kpfn)), f.mapped(node.kpfn)
            assert walked <= mapped
            assert {f.at(page) for _, page in mapped - walked} <= node.unlisted

    def teardown(self) -> None:
        for process in self.processes:
            for page, content in enumerate(self.held.get(process.pid, ())):
                assert process.read(self.f.at(page), 8) == content.ljust(8, b"\0")
        for pin in self.pins:
            pin.release()
        assert self.f.gone()


@pytest.mark.parametrize("base", ["4.18", "6.1", "6.12"])
@pytest.mark.parametrize("limit", [256, 2, 3])
def test_ksm_in_any_order(base: str, limit: int) -> None:
    kind = type("Merged", (Merged,), {"base": base, "limit": limit})
    kind.TestCase.settings = settings(
        max_examples=12 if base == "4.18" else 6,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    result = kind.TestCase("runTest").run()
    assert result is not None
    assert result.wasSuccessful(), (result.failures or result.errors)[0][1]
