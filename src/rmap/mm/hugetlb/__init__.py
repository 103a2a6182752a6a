# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages out of a pool: hugetlb and hugetlbfs (mm/hugetlb.c, fs/hugetlbfs, v4.18)."""

from __future__ import annotations
