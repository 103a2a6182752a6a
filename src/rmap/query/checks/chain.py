# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma_chains: each is in the list of its VMA and in the tree of its anon_vma.

And what VMAs and anon_vmas say of each other (kernel-wide rules of mm/rmap.c): a VMA has an anon_vma
if and only if its list is not empty, it is one of those in the list, all of these have one root, and
VMAs with one anon_vma have equal lists. The last is what CVE-2022-42703 broke.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.collect import Collector
from rmap.query.checks.objects import anon_vma_name, vma_name
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@check("chain", "every anon_vma_chain is in the list of its VMA and in the tree of its anon_vma")
def chain(image: MemoryImage, limit: int) -> Outcome:
    """Compare lists with trees, and with what VMAs say."""
    listed, nodes = image.tables["chain_nodes"], image.tables["tree_nodes"]
    if not len(listed) and not len(nodes):
        return Outcome("chains", skipped="the source does not see chains")
    found = Collector("chain", "chains", len(listed), limit)
    in_tree = nodes["node"][nodes["anon_vma"] >= 0]
    _lists(image, found, in_tree)
    _trees(image, found)
    _vmas(image, found)
    _unequal(image, found)
    return found.outcome("chain")


def _lists(image: MemoryImage, found: Collector, in_tree: npt.NDArray[np.uint64]) -> None:
    """Edges of lists: whose they say they are, and whether the tree has them."""
    listed = image.tables["chain_nodes"]

    def says(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        node = int(listed["node"][row])
        owner = vma_name(image, int(listed["vma"][row]))
        return f"anon_vma_chain {node:#x} in the list of {owner} {what}", {"node": node}

    found.where(
        "vma", listed["claims_vma"] != listed["vma"],
        lambda row: says(row, f"says that it is of {vma_name(image, int(listed['claims_vma'][row]))}"),
    )  # fmt: skip
    known = listed["claims_anon_vma"] >= 0
    found.where("anon_vma", ~known, lambda row: says(row, "names no anon_vma that is known"))
    found.where(
        "not in tree", known & ~np.isin(listed["node"], in_tree),
        lambda row: says(row, "is not in the tree of "
                         f"{anon_vma_name(image, int(listed['claims_anon_vma'][row]))}: walks of its "
                         "pages miss the VMA"),
    )  # fmt: skip
    pair = listed["vma"].astype(np.int64) << 32 | listed["claims_anon_vma"].astype(np.int64)
    _, first = np.unique(pair, return_index=True)
    again = known.copy()
    again[first] = False
    found.where("duplicate", again, lambda row: says(row, "is the second of its VMA and anon_vma"))


def _trees(image: MemoryImage, found: Collector) -> None:
    """Edges of trees: whose they say they are, and whether a list has them."""
    nodes, listed = image.tables["tree_nodes"], image.tables["chain_nodes"]
    of_anon = nodes["anon_vma"] >= 0

    def says(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        node = int(nodes["node"][row])
        owner = anon_vma_name(image, int(nodes["anon_vma"][row]))
        return f"anon_vma_chain {node:#x} in the tree of {owner} {what}", {"node": node}

    found.where(
        "claims", of_anon & (nodes["claims"] != nodes["anon_vma"]),
        lambda row: says(row, f"says that it is of {anon_vma_name(image, int(nodes['claims'][row]))}"),
    )  # fmt: skip
    found.where("dangling", of_anon & (nodes["vma"] < 0),
                lambda row: says(row, "names a VMA that no address space has"))  # fmt: skip
    found.where(
        "not in list", of_anon & (nodes["vma"] >= 0) & ~np.isin(nodes["node"], listed["node"]),
        lambda row: says(row, f"is not in the list of {vma_name(image, int(nodes['vma'][row]))}"),
    )  # fmt: skip


def _vmas(image: MemoryImage, found: Collector) -> None:
    """VMAs and their own anon_vma."""
    listed, vmas, table = image.tables["chain_nodes"], image.vmas, image.tables["anon_vmas"]
    if "anon_vma" not in vmas:
        return
    own = vmas["anon_vma"].astype(np.int64)
    has = np.zeros(len(vmas), bool)
    has[listed["vma"]] = True

    def says(row: int, what: str) -> tuple[str, dict[str, Fact]]:
        return f"{vma_name(image, row)} {what}", {"vma": int(vmas["start"][row])}

    found.where("no list", (own >= 0) & ~has,
                lambda row: says(row, f"has {anon_vma_name(image, int(own[row]))} and an empty chain"))  # fmt: skip
    found.where(
        "no anon_vma", (own < 0) & has, lambda row: says(row, "has a chain and no anon_vma")
    )
    mine = np.zeros(len(vmas), bool)
    mine[listed["vma"][listed["claims_anon_vma"] == own[listed["vma"]]]] = True
    found.where("own", (own >= 0) & has & ~mine,
                lambda row: says(row, f"has {anon_vma_name(image, int(own[row]))}, "
                                 "which is not in its chain"))  # fmt: skip
    known = (listed["claims_anon_vma"] >= 0) & (own[listed["vma"]] >= 0)
    root = table["root"]
    other = known.copy()
    other[known] = root[listed["claims_anon_vma"][known]] != root[own[listed["vma"][known]]]
    found.add("root", np.unique(listed["vma"][other]),
              lambda row: says(row, "has anon_vmas of two families in its chain"))  # fmt: skip


def _unequal(image: MemoryImage, found: Collector) -> None:
    """VMAs with one anon_vma and different chains."""
    if "anon_vma" not in image.vmas:
        return
    own = image.vmas["anon_vma"].astype(np.int64)
    chains = chain_hashes(image)
    rows = np.flatnonzero(own >= 0)
    order = rows[np.argsort(own[rows], kind="stable")]
    differs = (own[order[1:]] == own[order[:-1]]) & (chains[order[1:]] != chains[order[:-1]])

    def says(place: int) -> tuple[str, dict[str, Fact]]:
        one, two = int(order[place]), int(order[place + 1])
        return (
            f"{vma_name(image, one)} and {vma_name(image, two)} both have "
            f"{anon_vma_name(image, int(own[one]))} as their own, but their chains differ",
            {"vma": int(image.vmas["start"][one]), "other": int(image.vmas["start"][two])},
        )

    found.where("unequal", differs, says)


def chain_hashes(image: MemoryImage) -> I64:
    """A number for each VMA, equal for VMAs with the same set of anon_vmas."""
    listed = image.tables["chain_nodes"]
    mixed = (listed["claims_anon_vma"].astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E37_79B9_7F4A_7C15
    )
    mixed ^= mixed >> np.uint64(29)
    sums = np.zeros(len(image.vmas), np.uint64)
    np.add.at(sums, listed["vma"], mixed * mixed)
    return sums.view(np.int64)
