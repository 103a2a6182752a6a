# SPDX-License-Identifier: GPL-2.0-only
"""The file that most processes share."""

from __future__ import annotations

from machines import LIBC, Builder, small_machine

from rmap.query.popular import most_mapped_file


def test_it_is_the_c_library() -> None:
    assert most_mapped_file(small_machine()) == LIBC  # by three, and no other by as many


def test_address_spaces_count_not_mappings() -> None:
    b = Builder()
    first, second = b.process(1, "a"), b.process(2, "b")
    b.vma(first, 0x1000, 1, 1, path="/often")
    b.vma(first, 0x2000, 1, 1, path="/often")
    b.vma(first, 0x3000, 1, 1, path="/often")
    b.vma(first, 0x4000, 1, 1, path="/widely")
    b.vma(second, 0x1000, 1, 1, path="/widely")
    assert most_mapped_file(b.build([(0, 8)])) == "/widely"


def test_where_no_file_is_mapped_there_is_none() -> None:
    b = Builder()
    b.vma(b.process(1, "a"), 0x1000, 1, 3)
    assert most_mapped_file(b.build([(0, 8)])) is None
