# SPDX-License-Identifier: GPL-2.0-only
"""Which VMAs belong together, told from what they share."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rmap.model.families import Families, find_families


def families(
    mappings: list[tuple[int, int, int]], starts: list[int], fixed: tuple[int, ...] = ()
) -> Families:
    """Families of VMAs that map ``(vma, place, page)``; those in `fixed` begin where told."""
    columns = np.array(mappings, np.int64).reshape(-1, 3).T
    known = np.isin(np.arange(len(starts)), fixed)
    return find_families(columns[0], columns[1], columns[2], np.array(starts, np.int64), known)


def test_vmas_without_a_common_page_are_strangers() -> None:
    found = families([(0, 0, 7), (1, 0, 8)], [100, 200])
    assert found.family.tolist() == [0, 1]
    assert found.pgoff.tolist() == [100, 200]


def test_a_forked_vma_gets_the_offset_of_its_parent() -> None:
    # Page 7 is the fourth page of the one, and the second of the other.
    found = families([(0, 3, 7), (1, 1, 7)], [100, 500])
    assert found.family.tolist() == [0, 0]
    assert found.pgoff.tolist() == [100, 102]
    assert not len(found.misfits)


def test_a_family_joins_by_way_of_others() -> None:
    found = families([(0, 0, 7), (1, 0, 7), (1, 5, 8), (2, 0, 8)], [100, 200, 300])
    assert found.family.tolist() == [0, 0, 0]
    assert found.pgoff.tolist() == [100, 100, 105]


def test_a_vma_of_a_file_says_where_its_family_begins() -> None:
    found = families([(0, 0, 7), (1, 2, 7)], [100, 4], fixed=(1,))
    assert found.pgoff.tolist() == [6, 4]


def test_no_offset_is_below_zero() -> None:
    found = families([(0, 0, 7), (1, 9, 7)], [2, 50])
    assert found.pgoff.tolist() == [9, 0]


def test_a_page_that_contradicts_the_others_is_a_misfit() -> None:
    found = families([(0, 0, 7), (1, 0, 7), (0, 1, 8), (1, 1, 8), (0, 2, 9), (1, 5, 9)], [10, 20])
    assert found.pgoff.tolist() == [10, 10]
    assert found.misfits.tolist() == [5]


@given(st.data())
def test_what_was_forked_from_one_index_space_is_put_back_into_one(data: st.DataObject) -> None:
    """VMAs cut out of one space of pages: every mapping must get its page's index again."""
    count = data.draw(st.integers(1, 6))
    starts = [data.draw(st.integers(0, 40)) for _ in range(count)]
    mappings = []
    for vma, start in enumerate(starts):
        places = data.draw(st.sets(st.integers(0, 15), max_size=8))
        mappings += [(vma, place, start + place) for place in sorted(places)]
    wrong = [data.draw(st.integers(0, 1000)) for _ in range(count)]
    found = families(mappings, wrong)
    assert not len(found.misfits)
    for family in set(found.family.tolist()):
        shifts = {
            int(found.pgoff[vma]) - starts[vma]
            for vma in range(count)
            if found.family[vma] == family
        }
        assert len(shifts) == 1
    assert (found.pgoff >= 0).all()
