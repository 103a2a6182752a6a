# SPDX-License-Identifier: GPL-2.0-only
"""What is stored in a page is what is loaded from it, whatever was stored around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmap.mm.bits import PAGE_SIZE
from rmap.mm.bug import KernelBug
from rmap.mm.content import (
    clear_page_content,
    copy_page_content,
    page_bytes,
    page_read,
    page_write,
    set_page_bytes,
)
from rmap.mm.mm_types import Kernel
from rmap.mm.profile import profile


def kernel() -> Kernel:
    return Kernel(16, profile("4.18"))


@given(
    st.lists(
        st.integers(0, PAGE_SIZE - 1).flatmap(
            lambda offset: st.tuples(
                st.just(offset), st.binary(max_size=min(40, PAGE_SIZE - offset))
            )
        ),
        max_size=12,
    )
)
def test_stores_land_where_they_were_meant(stores: list[tuple[int, bytes]]) -> None:
    k = kernel()
    whole = bytearray(PAGE_SIZE)
    for offset, data in stores:
        whole[offset : offset + len(data)] = data
        page_write(k, 5, offset, data)
        assert page_read(k, 5, offset, len(data)) == data
    assert page_read(k, 5, 0, PAGE_SIZE) == bytes(whole)
    # One page has one form, so that two contents can be compared by their bytes.
    assert page_bytes(k, 5) == bytes(whole).rstrip(b"\0")
    assert page_read(k, 6, 0, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_a_page_of_zeros_takes_no_space() -> None:
    k = kernel()
    page_write(k, 5, 100, b"x")
    page_write(k, 5, 100, b"\0")
    assert k.content == {}


def test_a_copy_holds_what_the_original_held() -> None:
    k = kernel()
    set_page_bytes(k, 3, b"original")
    set_page_bytes(k, 4, b"something longer than that")
    copy_page_content(k, 4, 3)
    page_write(k, 3, 0, b"O")
    assert page_bytes(k, 4) == b"original"
    copy_page_content(k, 4, 7)
    assert page_bytes(k, 4) == b""
    clear_page_content(k, 3)
    assert k.content == {}


def test_a_page_holds_no_more_than_a_page() -> None:
    with pytest.raises(KernelBug, match="beyond the end"):
        page_write(kernel(), 3, PAGE_SIZE - 1, b"xy")
