# SPDX-License-Identifier: GPL-2.0-only
"""Machines with broken memory, and images of them."""

from __future__ import annotations

import numpy as np
import pytest

from rmap.image.flags import Kpf, Pte
from rmap.model import BrokenMemory, Machine, Process
from rmap.query.fsck import fsck

PAGE = 4096


@pytest.fixture
def family() -> tuple[Machine, Process, Process, int, int]:
    """Two processes that shared a page, which has broken; and that page."""
    m = Machine(ram=256, swap=64, invariants=True)
    p = m.spawn("p")
    a = p.mmap(2 * PAGE)
    p.write(a, b"lost")
    p.write(a + PAGE, b"kept")
    child = p.fork("child")
    page = p.pages(a, PAGE)[0]
    failure = m.memory_failure(page, action_required=p)
    assert (failure.page, failure.error) == (page, 0)
    assert [str(kill.process) for kill in failure.kills] == ["<Process 1 p>", "<Process 2 child>"]
    return m, p, child, a, page


def test_an_image_tells_what_is_broken(
    family: tuple[Machine, Process, Process, int, int],
) -> None:
    m, p, child, a, page = family
    image = m.snapshot()
    flags = image.pages["flags"][image.pages["pfn"] == page]
    assert flags[0] & int(Kpf.HWPOISON)
    poisoned = image.ptes["flags"] & int(Pte.HWPOISON) != 0
    assert int(np.count_nonzero(poisoned)) == 2
    assert [check.outcome.total for check in fsck(image).results] == [0] * len(fsck(image).results)
    # A machine that is made of it has the rest.
    again = Machine.from_image(image)
    assert again.check() == []
    copies = [process for process in again.processes.values() if process.pid in (p.pid, child.pid)]
    pages = [process.pages(a, 2 * PAGE) for process in copies]
    assert pages[0] == pages[1]
    assert pages[0][0] == 0
    assert len(again.who_maps(pages[0][1])) == 2


def test_who_is_told_may_go_and_nothing_is_left_but_the_page(
    family: tuple[Machine, Process, Process, int, int],
) -> None:
    m, p, child, a, page = family
    with pytest.raises(BrokenMemory, match="memory that is broken"):
        child.read(a, 1)
    for process in (p, child):
        process.exit()
    assert m.mem_stats()["nr_free_pages"] == 255
    assert m.unpoison(page)
    assert m.mem_stats()["nr_free_pages"] == 256
    assert m.walk(page).mappings == ()
