# SPDX-License-Identifier: GPL-2.0-only
"""Damages a dump in one way after the other, and looks whether ``rmap fsck`` finds it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lab.damage.kinds import KINDS, Hurt, Kind
from lab.damage.scene import NotHere, Scene
from rmap.image.validate import validate_image
from rmap.query.checks import Finding
from rmap.query.fsck import fsck

#: Findings of each check that are looked at.
_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one kind of damage.

    `found` are checks and kinds of findings, `right` those of the kind's own that found it and
    named the object, `affected` whether they named the processes. `lacking` says why it was not
    tried.
    """

    kind: Kind
    hurt: Hurt | None
    found: tuple[str, ...]
    right: tuple[str, ...]
    affected: bool
    words: str
    seconds: float
    lacking: str = ""

    @property
    def good(self) -> bool:
        """Found by a check that has to, located, and the processes named."""
        return bool(self.right) and self.affected


def label(finding: Finding) -> str:
    """The check of a finding, and its kind where the check has several."""
    kind = finding.facts.get("kind")
    return f"{finding.check}: {kind}" if kind is not None else finding.check


def try_kind(scene: Scene, kind: Kind) -> Trial:
    """Do one kind of damage, look, and undo it."""
    try:
        try:
            hurt = kind.do(scene)
        except NotHere as reason:
            return Trial(kind, None, (), (), False, "", 0.0, str(reason))
        started = time.perf_counter()
        image = scene.look()
        results = fsck(image, limit=_MANY).results
        seconds = time.perf_counter() - started
        validate_image(image, "the damaged dump")
    finally:
        scene.undo()
    findings = [one for result in results for one in result.outcome.findings]
    found = tuple(dict.fromkeys(label(one) for one in findings))
    mine = [
        one for one in findings
        if kind.checks & {label(one), one.check} and hurt.named & set(one.facts.values())
    ]  # fmt: skip
    named = {pid for one in mine for mapper in one.mappers for pid in mapper.pids}
    named |= {int(one.facts["pid"]) for one in mine if "pid" in one.facts}
    affected = not hurt.pids or bool(hurt.pids & named)
    words = mine[0].what if mine else ""
    right = tuple(dict.fromkeys(label(one) for one in mine))
    return Trial(kind, hurt, found, right, affected, words, seconds)


def try_all(scene: Scene, kinds: Iterable[Kind] | None = None) -> Iterator[Trial]:
    """Do all kinds of damage, each to the healthy dump."""
    for kind in KINDS.values() if kinds is None else kinds:
        yield try_kind(scene, kind)
