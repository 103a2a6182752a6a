# SPDX-License-Identifier: GPL-2.0-only
"""Colours that stay apart for every kind of eye.

Kinds of user memory take the hues of Okabe and Ito, whose set was made for colour-blind readers,
with a light and a dark tone of one hue for kinds that are close. The kernel's own memory is grey,
free memory nearly white: it is what one looks past. Degrees of sharing are steps of lightness,
which remain in order without any hue, on paper too.
"""

from __future__ import annotations

_KIND_COLOURS = {
    "anon": "#0072b2",
    "anon_huge": "#56b4e9",
    "file": "#e69f00",
    "shmem": "#009e73",
    "ksm": "#cc79a7",
    "hugetlb": "#882255",
    "zero": "#f0e442",
    "slab": "#8a8a8a",
    "pgtable": "#4d4d4d",
    "free": "#ececec",
    "offline": "#d8c4b6",
    "hwpoison": "#d40000",
    "reserved": "#a9a9a9",
    "other": "#c4c4c4",
    "not recorded": "#f6ead6",
}
#: Of the classes of `rmap.query.physmap.DEGREES`, in order.
DEGREE_COLOURS = ("#ececec", "#b5dfae", "#6fc3b3", "#3a9fbf", "#225ea8", "#081d58")

#: Of anon_vmas, in turn, each with the colour of text on it.
ANON_VMA_COLOURS = (
    ("#0072b2", "#ffffff"), ("#e69f00", "#1a1a1a"), ("#009e73", "#ffffff"),
    ("#cc79a7", "#1a1a1a"), ("#332288", "#ffffff"), ("#56b4e9", "#1a1a1a"),
    ("#d55e00", "#ffffff"), ("#999933", "#ffffff"), ("#882255", "#ffffff"),
    ("#44aa99", "#1a1a1a"),
)  # fmt: skip


def tint(colour: str, share: float) -> str:
    """Return a colour mixed with white, of which `share` (0 to 1) is the colour.

    >>> tint("#0072b2", 0.2)
    '#cce3f0'
    """
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - (255 - part) * share):02x}" for part in parts)


def kind_colour(name: str) -> str:
    """Return the colour of a kind of pages by its name.

    Raises
    ------
    KeyError
        For a kind that has no colour: every kind has one of its own.
    """
    return _KIND_COLOURS[name]
