# SPDX-License-Identifier: GPL-2.0-only
"""Images of crash dumps, of paused guests, and of ``/proc/kcore``, read through drgn.

No debug package is needed: types come from the BTF that the kernel carries, addresses from its own
symbol table. Where the user has DWARF, drgn uses that.
"""

from __future__ import annotations

from rmap.source.dump.image import dump_image

__all__ = ["dump_image"]
