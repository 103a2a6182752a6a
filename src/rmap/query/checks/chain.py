# SPDX-License-Identifier: GPL-2.0-only
"""anon_vma_chains: each is in the list of its VMA and in the tree of its anon_vma.

And what VMAs and anon_vmas say of each other (rules that mm/rmap.c keeps): a VMA has an anon_vma if
and only if its list is not empty, it is one of those in the list, all of these have one root, and
VMAs with one anon_vma have equal lists. The last is what CVE-2022-42703 broke.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmap.image import MemoryImage
from rmap.query.checks.collect import NO_STRUCTURE, Collector, Subject
from rmap.query.checks.objects import (
    anon_vma_name,
    handle_of,
    users_of_anon_vma,
    users_of_vmas,
    vma_name,
)
from rmap.query.checks.registry import Fact, Outcome, check

I64 = npt.NDArray[np.int64]


@check("chain", "every anon_vma_chain is in the list of its VMA and in the tree of its anon_vma")
def chain(image: MemoryImage, limit: int) -> Outcome:
    """Compare lists with trees, and with what VMAs say."""
    listed, nodes = image.tables["chain_nodes"], image.tables["tree_nodes"]
    if not len(listed) and not len(nodes):
        return Outcome("chains", skipped=NO_STRUCTURE)
    found = Collector("chain", "chains", len(listed), limit)
    _lists(image, found)
    _trees(image, found)
    if "anon_vma" in image.vmas:
        _vmas(image, found)
        _unequal(image, found)
    return found.outcome("chain")


def _lists(image: MemoryImage, found: Collector) -> None:
    """Edges of lists: whose they say they are, and whether the tree has them."""
    listed, nodes = image.tables["chain_nodes"], image.tables["tree_nodes"]
    vma, says_vma, says_anon = listed["vma"], listed["claims_vma"], listed["claims_anon_vma"]
    edge = Subject(
        lambda row: (
            f"anon_vma_chain {int(listed['node'][row]):#x} in the list of "
            f"{vma_name(image, int(vma[row]))}"
        ),
        lambda row: _edge_facts(int(listed["node"][row])),
        lambda row: users_of_vmas(image, vma[row : row + 1]),
    )
    found.where(edge, "vma", says_vma != vma, lambda row: (
        f"says that it is of {vma_name(image, int(says_vma[row]))}"))  # fmt: skip
    known = says_anon >= 0
    found.where(edge, "anon_vma", ~known, "names no anon_vma that is known")
    in_tree = nodes["node"][nodes["anon_vma"] >= 0]
    found.where(edge, "not in tree", known & ~np.isin(listed["node"], in_tree), lambda row: (
        f"is not in the tree of {anon_vma_name(image, int(says_anon[row]))}: walks of its pages "
        "miss the VMA"))  # fmt: skip
    pair = vma.astype(np.int64) << 32 | says_anon.astype(np.int64)
    _, first = np.unique(pair, return_index=True)
    again = known.copy()
    again[first] = False
    found.where(edge, "duplicate", again, "is the second of its VMA and anon_vma")


def _edge_facts(node: int) -> dict[str, Fact]:
    return {"object": "anon_vma_chain", "address": node, "node": node}


def _trees(image: MemoryImage, found: Collector) -> None:
    """Edges of trees: whose they say they are, and whether a list has them."""
    nodes, listed = image.tables["tree_nodes"], image.tables["chain_nodes"]
    owner, claims, vma = nodes["anon_vma"], nodes["claims"], nodes["vma"]
    of_anon = owner >= 0
    edge = Subject(
        lambda row: (
            f"anon_vma_chain {int(nodes['node'][row]):#x} in the tree of "
            f"{anon_vma_name(image, int(owner[row]))}"
        ),
        lambda row: _edge_facts(int(nodes["node"][row])),
        lambda row: (
            users_of_vmas(image, vma[row : row + 1]) or users_of_anon_vma(image, int(owner[row]))
        ),
    )
    found.where(edge, "claims", of_anon & (claims != owner), lambda row: (
        f"says that it is of {anon_vma_name(image, int(claims[row]))}"))  # fmt: skip
    found.where(edge, "dangling", of_anon & (vma < 0), "names a VMA that no address space has")
    unlisted = of_anon & (vma >= 0) & ~np.isin(nodes["node"], listed["node"])
    found.where(edge, "not in list", unlisted,
                lambda row: f"is not in the list of {vma_name(image, int(vma[row]))}")  # fmt: skip


def _vmas(image: MemoryImage, found: Collector) -> None:
    """VMAs and their own anon_vma."""
    listed, root = image.tables["chain_nodes"], image.tables["anon_vmas"]["root"]
    vma, says_anon = listed["vma"], listed["claims_anon_vma"]
    own = image.vmas["anon_vma"].astype(np.int64)
    subject = _vma_subject(image)
    has = np.zeros(len(own), bool)
    has[vma] = True
    found.where(subject, "no list", (own >= 0) & ~has, lambda row: (
        f"has {anon_vma_name(image, int(own[row]))} and an empty chain"))  # fmt: skip
    found.where(subject, "no anon_vma", (own < 0) & has, "has a chain and no anon_vma")
    mine = np.zeros(len(own), bool)
    mine[vma[says_anon == own[vma]]] = True
    found.where(subject, "own", (own >= 0) & has & ~mine, lambda row: (
        f"has {anon_vma_name(image, int(own[row]))}, which is not in its chain"))  # fmt: skip
    other = (says_anon >= 0) & (own[vma] >= 0)
    other[other] = root[says_anon[other]] != root[own[vma[other]]]
    found.add(subject, "family", np.unique(vma[other]),
              "has anon_vmas of two families in its chain")  # fmt: skip


def _vma_subject(image: MemoryImage) -> Subject:
    return Subject(
        lambda row: vma_name(image, row),
        lambda row: {
            "vma": int(image.vmas["start"][row]), **handle_of(image.vmas, row, "vma"),
        },
        lambda row: users_of_vmas(image, [row]),
    )  # fmt: skip


def _unequal(image: MemoryImage, found: Collector) -> None:
    """VMAs with one anon_vma and different chains."""
    own = image.vmas["anon_vma"].astype(np.int64)
    chains = chain_hashes(image)
    rows = np.flatnonzero(own >= 0)
    order = rows[np.argsort(own[rows], kind="stable")]
    one, two = order[:-1], order[1:]
    differs = (own[one] == own[two]) & (chains[one] != chains[two])
    after = dict(zip(one[differs].tolist(), two[differs].tolist(), strict=True))
    found.add(_vma_subject(image), "unequal", one[differs], lambda row: (
        f"and {vma_name(image, after[row])} both have {anon_vma_name(image, int(own[row]))} as "
        "their own, but their chains differ"))  # fmt: skip


def chain_hashes(image: MemoryImage) -> I64:
    """A number for each VMA, equal for VMAs with the same set of anon_vmas."""
    listed = image.tables["chain_nodes"]
    mixed = listed["claims_anon_vma"].astype(np.uint64) + np.uint64(1)
    mixed *= np.uint64(0x9E37_79B9_7F4A_7C15)
    mixed ^= mixed >> np.uint64(29)
    sums = np.zeros(len(image.vmas), np.uint64)
    np.add.at(sums, listed["vma"], mixed * mixed)
    return sums.view(np.int64)
