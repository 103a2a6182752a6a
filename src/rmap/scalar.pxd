# SPDX-License-Identifier: GPL-2.0-only
ctypedef unsigned char u8
ctypedef unsigned short u16
ctypedef unsigned int u32
ctypedef unsigned long long u64
ctypedef int i32
ctypedef long long i64
ctypedef bint flag
