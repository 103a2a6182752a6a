# SPDX-License-Identifier: GPL-2.0-only
from rmap.scalar cimport flag, i32, u64

cpdef i32 BUG(str check) except -1
cpdef i32 BUG_PAGE(str check, u64 page) except -1
cpdef i32 WARN(list warnings, str check) except -1
cpdef i32 WARN_ONCE(list warnings, str check) except -1
