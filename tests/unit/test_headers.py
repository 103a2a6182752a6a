# SPDX-License-Identifier: GPL-2.0-only
"""The headers that tools/headers.py makes say what the modules say that they are made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def headers() -> ModuleType:
    """``tools/headers.py``, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("headers", ROOT / "tools" / "headers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_made_headers_are_current(
    headers: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert headers.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_a_header_that_is_not_current_is_named(
    headers: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "INLINE", {"page": ("PageTail",)})
    assert headers.main(["--check"]) == 1
    assert "src/rmap/mm/inline.pxd is not current" in capsys.readouterr().out


def test_an_inline_function_has_the_signature_and_the_body_of_the_modules(
    headers: ModuleType,
) -> None:
    (text,) = headers.inlined("pgtable", ("pmd_trans_huge",))
    assert text == (
        "cdef inline flag pmd_trans_huge(u64 pmd) noexcept:\n"
        "    return pmd & _PAGE_PSE != 0 and pmd & _PAGE_DEVMAP == 0\n"
    )


def test_what_a_module_does_not_have_cannot_be_inlined(headers: ModuleType) -> None:
    with pytest.raises(ValueError, match="no pte_mkfunny"):
        list(headers.inlined("pgtable", ("pte_mkfunny",)))


def test_small_constants_are_ints_and_large_ones_keep_their_bits(headers: ModuleType) -> None:
    text = headers.header({"SMALL": 7, "_LARGE": 1 << 63})
    assert "    #define RMAP_SMALL 0x7\n" in text
    assert "    #define RMAP_LARGE 0x8000000000000000ULL\n" in text
    assert '    i32 SMALL "RMAP_SMALL"\n' in text
    assert '    u64 _LARGE "RMAP_LARGE"\n' in text
