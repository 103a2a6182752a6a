# SPDX-License-Identifier: GPL-2.0-only
"""The live machine, read through ``/proc`` alone: no module, no BPF, nothing changed.

``maps`` gives the VMAs, ``pagemap`` the page-table entries, ``kpagecount`` and ``kpageflags`` the
kernel's own view of each page. Page frame numbers need CAP_SYS_ADMIN; without it the kernel
shows zeros, so `snapshot` refuses instead.

>>> from rmap.source.proc import snapshot
>>> image = snapshot()  # doctest: +SKIP
"""

from __future__ import annotations

from rmap.source.proc.identity import file_identity
from rmap.source.proc.snapshot import snapshot

__all__ = ["file_identity", "snapshot"]
