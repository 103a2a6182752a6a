# SPDX-License-Identifier: GPL-2.0-only
"""The C integer types by which the compiled modules are typed; uncompiled they are plain ints.

A module of `rmap.sync` or `rmap.mm` is ordinary Python with these names as annotations, and a
``.pxd`` header beside it that says which of its functions and attributes are C. Compiled, an
``u64`` wraps at 2**64 and an ``i32`` at 2**31; uncompiled neither does. So no code relies on
wrapping: it masks, or it tests before it subtracts.
"""

from __future__ import annotations

u8 = int
u16 = int
u32 = int
u64 = int
i32 = int
i64 = int
flag = bool
