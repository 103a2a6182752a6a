# SPDX-License-Identifier: GPL-2.0-only
"""A laboratory for crash dumps: real kernels in an emulated machine, and what they say themselves.

``python -m lab --series 6.12 -o DIR`` fetches a Debian kernel, boots it in QEMU with processes that
share memory in every way, has the guest write down what its own /proc says of them, and dumps its
memory. ``python -m lab.reduce`` makes such a dump small enough for a repository, and
``python -m lab.compare`` holds what `rmap` reads in one against what the guest wrote.
"""

from __future__ import annotations
