# SPDX-License-Identifier: GPL-2.0-only
"""Text that came from elsewhere, made fit for a terminal; numbers with units.

Command names, paths and cgroups are chosen by whoever runs a program. A newline in one would
forge a line of our output, an escape sequence would reprogram the terminal that shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def printable(text: str) -> str:
    r"""Return ``text`` with everything that does not simply print written as an escape.

    That is control characters, line and paragraph separators, invisible and direction-changing
    format characters, and lone surrogates: what :meth:`str.isprintable` refuses. Backslashes
    stay as they are, since paths from ``/proc`` hold the kernel's own escapes.

    >>> print(printable("a\x1b[31m\nb\u202e"))
    a\x1b[31m\x0ab\u202e
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def human_bytes(count: int | float) -> str:
    """Return a number of bytes with a binary unit and, above bytes, one decimal.

    >>> human_bytes(4096), human_bytes(1536 << 20), human_bytes(-10)
    ('4.0 KiB', '1.5 GiB', '-10 B')
    """
    sign, rest = ("-", -count) if count < 0 else ("", count)
    # 1023.95 of a unit would round up to 1024.0: it belongs to the next one.
    unit = 0
    while unit + 1 < len(_BINARY_UNITS) and rest >= (1024 if unit == 0 else 1023.95):
        rest /= 1024
        unit += 1
    number = f"{rest:.1f}" if unit else f"{rest:.0f}"
    return f"{sign}{number} {_BINARY_UNITS[unit]}"


def short_bytes(count: int) -> str:
    """Return a number of bytes with a binary unit, without decimals where none are needed.

    >>> short_bytes(2 << 20), short_bytes(1536), short_bytes(0)
    ('2 MiB', '1.5 KiB', '0')
    """
    return human_bytes(count).replace(".0 ", " ") if count else "0"


def aligned(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table with a heading; columns whose title is in `right` end together.

    >>> list(aligned(("NAME", "SIZE"), [("a", "10")], right=("SIZE",)))
    ['NAME  SIZE', 'a       10']
    """
    lines = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            text.rjust(width) if title in right else text.ljust(width)
            for text, width, title in zip(line, widths, titles, strict=True)
        )
        yield "  ".join(cells).rstrip()
