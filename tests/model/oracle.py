# SPDX-License-Identifier: GPL-2.0-only
"""What processes must see, told by dictionaries: no pages, no page tables, no sharing.

A process is a dictionary from page number to `Spot`: what may be done there, and what is there. Of
private memory the value is the process's own; of files and shared memory it is in a `Store` that
all share. A value is one number a page; 0 is a page that nobody wrote to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass
class Store:
    """A file, or a piece of shared memory: values by page, and its size in pages."""

    size: int
    values: dict[int, int] = field(default_factory=dict)

    def truncate(self, size: int) -> None:
        """Lose what lies beyond a new size."""
        self.size = size
        self.values = {index: value for index, value in self.values.items() if index < size}


@dataclass
class Spot:
    """One page of an address space. `own` is what the process wrote to it, if it is private.

    `freed` says that MADV_FREE permits the kernel to forget `own`.
    """

    prot: str
    store: Store | None = None
    index: int = 0
    private: bool = True
    own: int | None = None
    freed: bool = False
    dontfork: bool = False
    wipeonfork: bool = False

    def values(self) -> set[int]:
        """What may be read here."""
        beneath = 0 if self.store is None else self.store.values.get(self.index, 0)
        if self.own is None or not self.private:
            return {beneath}
        return {self.own, beneath} if self.freed else {self.own}

    @property
    def exists(self) -> bool:
        """Whether there is memory behind it: a file may be too short."""
        return self.store is None or self.index < self.store.size

    def write(self, value: int) -> None:
        """Store a value, where it belongs."""
        if self.private:
            self.own, self.freed = value, False
        elif self.store is not None:
            self.store.values[self.index] = value


Space = dict[int, Spot]


def fork(space: Space) -> Space:
    """The child's copy of an address space."""
    child = {}
    for page, spot in space.items():
        if not spot.dontfork:
            child[page] = replace(spot)
            if spot.wipeonfork:
                child[page].own = None
    return child


def drop(space: Space, page: int, pages: int) -> None:
    """Unmap a range."""
    for at in range(page, page + pages):
        space.pop(at, None)


def forget(space: Space, page: int, pages: int) -> None:
    """MADV_DONTNEED: private values go."""
    for at in range(page, page + pages):
        if at in space:
            space[at].own, space[at].freed = None, False


def move(space: Space, page: int, pages: int, target: int, wanted: int) -> None:
    """mremap(): take `pages` pages away from one place and make them `wanted` at another."""
    drop(space, page + wanted, pages - wanted)
    moved = [space.pop(at) for at in range(page, page + min(pages, wanted))]
    drop(space, target, wanted)
    last = moved[-1]
    for number in range(wanted):
        if number < len(moved):
            space[target + number] = moved[number]
        else:
            beyond = replace(last, own=None, freed=False)
            beyond.index = last.index + (number - len(moved) + 1) * (last.store is not None)
            space[target + number] = beyond
