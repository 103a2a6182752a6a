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


def kind_colour(name: str) -> str:
    """Return the colour of a kind of pages by its name.

    Raises
    ------
    KeyError
        For a kind that has no colour: every kind has one of its own.
    """
    return _KIND_COLOURS[name]
